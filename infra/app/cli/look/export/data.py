"""`odradek export data`: chosen episodes as files that other tools train on."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from odradek.infra.app.cli.selection import (
    ARCHIVE,
    IMPORTED,
    SKIP_MISSING,
    SOURCE,
    archive_at,
    filters,
    selection_of,
)
from odradek.infra.app.datasets import FORMATS

if TYPE_CHECKING:
    from odradek.infra.app.datasets.export import ExportedRows


@click.command("data", short_help="Chosen episodes as rows for other trainers.")
@click.argument("kind", metavar="FORMAT", type=click.Choice(list(FORMATS)))
@click.argument("out", type=click.Path(path_type=Path))
@filters
@SOURCE
@click.option(
    "--purpose",
    type=click.Choice(["train", "eval"]),
    default="train",
    show_default=True,
    help="Of the tasks: an evaluation's episodes are no training data.",
)
@SKIP_MISSING
@IMPORTED
@ARCHIVE
@click.option("--overwrite", is_flag=True, help="Also where OUT is there already.")
def command(
    kind: str,
    out: Path,
    source: str,
    purpose: str,
    skip_missing: bool,
    imported: bool,
    location: str | None,
    overwrite: bool,
    **words: Any,
) -> None:
    """Write the episodes of chosen batches to OUT, a row each.

    \b
    odradek export data sft good.jsonl --reward 0.9:
    odradek export data dpo pairs.parquet --steps 100:200
    odradek export data episodes tokens.parquet --agent hilo

    \b
    FORMAT is one of:
      episodes  tokens, log probabilities, versions and rewards
      sft       messages of each episode, for TRL's SFTTrainer
      dpo       best and worst of each group, for its DPOTrainer
      kto       the same two, one a row with a label, for its KTOTrainer

    OUT ends in .jsonl or .parquet, or names a folder for `datasets.load_from_disk`. All filters
    that are given must hold; without any, all batches are meant.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.app.datasets.export import export
    from odradek.infra.bus import BusSettings

    with counting() as bar:
        task = bar.add_task("episodes", total=None)
        written = asyncio.run(
            export(
                BusSettings(),
                msgspec.structs.replace(selection_of(**words), purpose=purpose),
                kind,
                out,
                source=source,
                skip_missing=skip_missing,
                archive=archive_at(location),
                overwrite=overwrite,
                imported=imported,
                progress=lambda done, of: bar.update(task, completed=done, total=of),
            )
        )
    for line in lines(written, out, of="tasks" if imported else "batches"):
        click.echo(line)


def lines(written: "ExportedRows", out: Path, *, of: str = "batches") -> list[str]:
    """What an export came to, for people."""
    left = [f"left out: {n} {why}" for why, n in sorted(written.left_out.items())]
    return [*left, f"{written.rows} rows of {written.batches} {of} are in {out}"]
