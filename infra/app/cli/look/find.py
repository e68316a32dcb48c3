"""`odradek find`: what was said, or sampled, in the past."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click
import msgspec

from odradek.infra.app.cli.selection import (
    ARCHIVE,
    IMPORTED,
    SKIP_MISSING,
    archive_at,
    filters,
    selection_of,
)

if TYPE_CHECKING:
    from odradek.infra.archive import Archive
    from odradek.streams.history import Selection
    from odradek.streams.history.patterns import Pattern


@click.command()
@click.argument("text", required=False)
@click.option("--regex", metavar="RE", help="A regular expression in place of TEXT.")
@click.option("--tokens", metavar="IDS", help="Token ids that follow each other, such as '12 7 9'.")
@click.option("--ignore-case", "-i", is_flag=True, help="Upper and lower case are the same.")
@filters
@click.option(
    "--from", "source", default="", metavar="TOPIC", help="Where the batches of filters stand."
)
@SKIP_MISSING
@IMPORTED
@ARCHIVE
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="End after so many; 0 for all.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    text: str | None,
    regex: str | None,
    tokens: str | None,
    ignore_case: bool,
    source: str,
    skip_missing: bool,
    imported: bool,
    location: str | None,
    limit: int,
    as_json: bool,
    **words: Any,
) -> None:
    """Search messages, replies and inputs of tasks for TEXT, or sequences for token ids.

    Filters are those of `odradek replay`: only episodes of such batches are meant. Without any, all
    episodes are, also those in no batch. The exit code is 0 if something is found, else 1.
    """
    given = [one for one in (text, regex, tokens) if one]
    if len(given) != 1:
        raise click.UsageError("say what to find: TEXT, --regex or --tokens, one of them")
    pattern = _pattern(text, regex, tokens, ignore_case=ignore_case)
    selection = selection_of(**words)
    count = asyncio.run(
        _find(
            pattern,
            selection,
            limit,
            as_json=as_json,
            imported=imported,
            archive=archive_at(location),
            source=source,
            skip_missing=skip_missing,
        )
    )
    if not as_json:
        ended = f", and ended there (--limit {limit})" if limit and count >= limit else ""
        click.echo(f"{count} found{ended}", err=True)
    if not count:
        click.get_current_context().exit(1)


def _pattern(
    text: str | None, regex: str | None, tokens: str | None, *, ignore_case: bool
) -> "Pattern":
    from odradek.streams.history.patterns import Phrase, Regex, TokenIds

    if tokens:
        return TokenIds.parse(tokens)
    if regex:
        return Regex.parse(regex, ignore_case=ignore_case)
    return Phrase(text or "", ignore_case)


async def _find(
    pattern: "Pattern",
    selection: "Selection",
    limit: int,
    *,
    as_json: bool,
    imported: bool,
    archive: "Archive | None",
    **where: Any,
) -> int:
    from odradek.infra.bus import BusSettings
    from odradek.streams.history.batches import choose
    from odradek.streams.history.imports import choose_imported
    from odradek.streams.history.search import findings

    bus = BusSettings()
    choice = None
    if imported:
        choice = await choose_imported(bus, selection, archive=archive)
    elif not selection.is_empty:
        choice = await choose(bus, selection, pointers=True, archive=archive, **where)
        if choice.left_out:
            click.echo(
                f"{len(choice.left_out)} batches were left out: episodes of them are gone", err=True
            )
    count = 0
    async with aclosing(findings(bus, pattern, choice, archive)) as found:
        async for one in found:
            count += 1
            if as_json:
                click.echo(msgspec.json.encode(one))
            else:
                said = " ".join(one.hit.text.split())
                click.echo(f"{one.at}  {one.episode_id}  {one.hit.where}: {said}")
            if count == limit:
                break
    return count
