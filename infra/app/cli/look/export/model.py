"""`odradek export model`: a checkpoint as a whole Hugging Face folder."""

import sys
from pathlib import Path
from typing import Any

import click

from odradek.infra.runtime.imports import large_imports

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("model", short_help="A checkpoint as a whole Hugging Face folder.")
@click.argument("checkpoint", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--model", type=FOLDER, help="Where an adapter's base model is now, if it was moved.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the written weights.",
)
@click.option("--base-model", default="", help="Id of the base model on the hub, for the card.")
def command(checkpoint: Path, out: Path, **options: Any) -> None:
    """Write the model of CHECKPOINT, such as runs/policy/checkpoint-40, to the folder OUT.

    Transformers and engines load OUT as it is. A LoRA adapter is merged into the model that it was
    trained on. A card, README.md, says where the model is from. OUT must not be there yet, or be
    empty.
    """
    with large_imports():
        from odradek.trainer.adapters.export import export_model

    made = export_model(checkpoint, out, command=("odradek", *sys.argv[1:]), **options)
    merged = f", an adapter of rank {made.adapter.rank} merged" if made.adapter else ""
    click.echo(
        f"run {made.run}, step {made.step}: {made.parameters:,} parameters in {made.dtype} in "
        f"{made.folder}{merged}"
    )
