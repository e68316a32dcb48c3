"""`odradek show`: what the trainer saw."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.cli.selection import ARCHIVE, archive_at

if TYPE_CHECKING:
    from odradek.infra.app.history.steps import LogHistory
    from odradek.infra.archive import Archive

Look = Callable[["LogHistory"], Awaitable[Any]]
PLACE: Final = "Or its place, TOPIC/PARTITION/OFFSET."


def looks(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that all of them have."""
    for option in (
        ARCHIVE,
        click.option("--json", "as_json", is_flag=True, help="Answer in JSON."),
        click.option(
            "--html",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write a page that needs nothing beside itself.",
        ),
        click.option(
            "--tokenizer",
            default="",
            metavar="FOLDER",
            help="Of the model whose tokenizer reads the tokens.  [default: of the run]",
        ),
        click.option("--run", default="main", show_default=True, help="Whose steps are meant."),
    ):
        command = option(command)
    return command


@click.group(cls=WholeSentences)
def command() -> None:
    """Show what the trainer saw: tokens, masks, log probabilities, advantages and versions.

    Each part names its place on the log, and each place can be shown in turn. Tokens that are
    trained on are green, or in brackets where there are no colours.
    """


@command.command()
@click.argument("number", type=click.IntRange(1), metavar="STEP")
@looks
def step(number: int, **options: Any) -> None:
    """Show an optimizer step, and all rows that it was trained on."""

    async def look(past: "LogHistory") -> Any:
        return await past.step(number)

    show(look, **options)


@command.command()
@click.argument("name", metavar="OFFSET")
@looks
def batch(name: str, **options: Any) -> None:
    """Show a batch of rl.batches.v1 by its offset, or by TOPIC/PARTITION/OFFSET."""

    async def look(past: "LogHistory") -> Any:
        from odradek.infra.app.history.episodes import used_batch

        return await used_batch(past, name)

    show(look, **options)


@command.command()
@click.argument("name", metavar="ID")
@looks
def episode(name: str, **options: Any) -> None:
    """Show an episode by its id or place: how it ended, its turns and its rows."""

    async def look(past: "LogHistory") -> Any:
        from odradek.infra.app.history.episodes import episode_view

        return await episode_view(past, name)

    show(look, **options)


@command.command()
@click.argument("name", metavar="ID")
@looks
def task(name: str, **options: Any) -> None:
    """Show a task by its id or place, with the batch that came of it."""

    async def look(past: "LogHistory") -> Any:
        from odradek.infra.app.history.episodes import task_view

        return await task_view(past, name)

    show(look, **options)


@command.command()
@click.argument("name", metavar="ID")
@looks
def turn(name: str, **options: Any) -> None:
    """Show a turn by its id or place: its request, its reply and their tokens."""

    async def look(past: "LogHistory") -> Any:
        from odradek.infra.app.history.episodes import turn_view

        return await turn_view(past, name)

    show(look, **options)


def show(
    look: Look,
    *,
    run: str,
    tokenizer: str,
    location: str | None,
    as_json: bool,
    html: Path | None,
) -> None:
    """Look something up, and print it or write its page."""
    from odradek.infra.app.history.sections import Heading, sections_of

    view = asyncio.run(_looked(look, run, tokenizer, archive_at(location)))
    if html is not None:
        from odradek.infra.app.history.page import page_of

        sections = list(sections_of(view))
        title = next(one.text for one in sections if isinstance(one, Heading))
        html.write_text(page_of(sections, title), encoding="utf-8")
        click.echo(f"{html}: {title}", err=as_json)
    if as_json:
        click.echo(msgspec.json.encode(view))
    if as_json or html is not None:
        return
    from rich.console import Console

    from odradek.infra.app.history.text import LEGEND, rendered

    console = Console(soft_wrap=False, highlight=False)
    console.print(rendered(sections_of(view), marked=not console.color_system))
    if console.color_system:
        console.print(LEGEND)


async def _looked(look: Look, run: str, tokenizer: str, archive: "Archive | None") -> Any:
    from odradek.infra.app.history.steps import LogHistory
    from odradek.infra.archive import looking_back
    from odradek.infra.bus import BusSettings

    async with looking_back(BusSettings(), archive) as lookup:
        return await look(LogHistory(lookup, run, tokenizer))
