"""`python -m odradek.infra.app.cli` is `odradek`."""

from odradek.infra.app.cli import main

main(prog_name="odradek")
