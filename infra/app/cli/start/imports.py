"""`odradek import`: conversations that were recorded elsewhere, into the log."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from odradek.infra.app.imports import FORMATS

if TYPE_CHECKING:
    from odradek.infra.app.imports.publish import Imported


@click.command("import")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE…",
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    help="Of all files.  [default: that of each file's first record]",
)
@click.option("--agent", default="", help="The agent's name, in place of the records' own.")
@click.option(
    "--purpose",
    type=click.Choice(["train", "eval"]),
    default="train",
    show_default=True,
    help="Of the tasks, as exports select by it.",
)
@click.option(
    "--skip-bad", is_flag=True, help="Leave out records that make no episode, and import the rest."
)
@click.option("--dry-run", is_flag=True, help="Read and count; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(files: tuple[Path, ...], as_json: bool, format_: str | None, **options: Any) -> None:
    """Put recorded conversations into the log, as imported episodes.

    \b
    odradek import support-chats.jsonl --agent support
    odradek import outputs/*/results.jsonl --dry-run
    odradek import tokens.parquet                # of `odradek export data episodes`

    \b
    What they are is seen from their first record:
      chat             OpenAI's {"messages": […]}, or TRL's prompt and completion
      verifiers        saved results: prompt, completion, reward, example_id, …
      agent-lightning  spans of its store, a span a line
      odradek          rows of `odradek export data episodes`, JSON lines or Parquet

    Imported episodes can be searched, judged, exported and queried, by `--imported`. They are in no
    batch, and no trainer takes them: nobody here knows which weights sampled them.

    The same files can be imported again: what the log has is passed over, and an import that was
    stopped goes on. If a record makes no episode, nothing is written, unless you say --skip-bad.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.app.imports.publish import import_files
    from odradek.infra.bus import BusSettings

    with counting(quiet=as_json) as bar:
        tasks: dict[str, Any] = {}

        def moved(what: str, n: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
            bar.advance(tasks[what], n)

        result = asyncio.run(
            import_files(BusSettings(), files, format_=format_ or "", progress=moved, **options)
        )
    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    for bad in result.lines:
        click.echo(f"left out: {bad}", err=True)
    for line in lines(result):
        click.echo(line)


def lines(result: "Imported") -> list[str]:
    """What an import came to, for people."""
    verb = "would be imported" if result.dry else "are imported"
    formats = ", ".join(sorted(set(result.formats.values())))
    whole = f"{result.trainable} of them have tokens and log probabilities"
    shown = [f"{result.episodes} episodes {verb} ({formats}); {whole}"]
    if result.there:
        shown.append(f"{result.there} were there already")
    if result.bad:
        shown.append(f"{result.bad} records make no episode, and are left out")
    return shown
