"""`python -m odradek.infra.cli` is `odradek`."""

from odradek.infra.cli import main

main(prog_name="odradek")
