"""`odradek dlq`: dead letters."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences

if TYPE_CHECKING:
    from odradek.infra.bus import Record
    from odradek.streams.dead_letters import Filter

DLQ = click.option(
    "--dlq", default="rl.dlq.v1", show_default=True, help="Or an agent's: a2a.dlq.NAME."
)
EXPIRED: Final = "expired_assertion"
"""Whoever appends a copy of an old request has it refused so: it is not signed anew."""
REPLAY_S: Final = 60.0
"""How long the broker may take for one record."""

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
TIME = "Such as 10m, 2h, 7d for that long ago, or 2026-01-31T12:00 (UTC)."


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which letters are meant."""
    for option in (
        click.option("--until", default="", metavar="TIME", help=f"Only older ones. {TIME}"),
        click.option("--since", default="", metavar="TIME", help=f"Only newer ones. {TIME}"),
        click.option("--topic", default="", help="Only from this topic."),
        click.option("--reason", default="", help="Only with this reason, such as late_reward."),
    ):
        command = option(command)
    return command


@click.group(cls=WholeSentences)
def command() -> None:
    """Look at dead letters, and send them again once their cause is gone.

    A dead letter holds the original bytes; its headers say from where it came and why.
    """


@command.command("list")
@filters
@DLQ
@AS_JSON
def list_letters(dlq: str, as_json: bool, **words: str) -> None:
    """List dead letters: place, origin and reason, without content."""
    from odradek.streams.dead_letters import described

    descriptions = [described(letter) for letter in asyncio.run(_letters(dlq, _filter(**words)))]
    if as_json:
        click.echo(msgspec.json.encode({"letters": descriptions}))
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [
        (letter["at"], letter.get("reason", "?"), _origin(letter), letter["key"] or "-",
         letter.get("detail", ""))
        for letter in descriptions
    ]  # fmt: skip
    if cells:
        Console().print(ReadableTable(("at", "reason", "from", "key", "detail"), cells))
    click.echo(f"{len(descriptions)} dead letters")


def _origin(letter: dict[str, str]) -> str:
    return f"{letter.get('topic')}[{letter.get('partition')}]@{letter.get('offset')}"


@command.command()
@click.argument("at", metavar="PARTITION:OFFSET")
@DLQ
@AS_JSON
def show(at: str, dlq: str, as_json: bool) -> None:
    """Show one dead letter whole: its headers, then its bytes as text.

    In JSON the bytes are base64, so that nothing of them is lost.
    """
    from odradek.infra.bus import BusSettings
    from odradek.streams.dead_letters import described, find

    letter = asyncio.run(find(BusSettings(), at, dlq=dlq))
    shown = {name: (value or b"").decode(errors="replace") for name, value in letter.headers}
    if as_json:
        description = {**described(letter), "headers": shown, "value": letter.value}
        click.echo(msgspec.json.encode(description))
        return
    for name, text in shown.items():
        click.echo(f"{name}: {text}")
    click.echo()
    click.echo((letter.value or b"").decode(errors="backslashreplace"))


@command.command()
@click.argument("places", nargs=-1, metavar="[PARTITION:OFFSET]…")
@filters
@click.option(
    "--max-attempts",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Leave what has been a dead letter so often; 0 for no bound.",
)
@DLQ
@AS_JSON
def replay(
    places: tuple[str, ...], max_attempts: int, dlq: str, as_json: bool, **words: str
) -> None:
    """Send letters' original bytes again to the topic that they came from.

    Name places, or say which by --reason, --topic, --since or --until. Key and headers go along,
    and a count of attempts. The letters stay where they are. A request to an agent is signed anew
    if its signature was genuine (ODRADEK_TRUST_SIGNING_KEY and ODRADEK_TRUST_VERIFICATION_KEYS).
    """
    if not places and not any(words.values()):
        raise click.UsageError(
            "name letters by PARTITION:OFFSET, or say --reason, --topic, --since or --until"
        )
    sent, left = asyncio.run(_replay(places, _filter(**words), max_attempts, dlq))
    if as_json:
        click.echo(msgspec.json.encode({"sent": sent, "left": left}))
        return
    note = f"; {left} left, after {max_attempts} attempts (--max-attempts)" if left else ""
    click.echo(f"{sent} sent again{note}")


@command.command()
@click.argument("before", nargs=-1, metavar="[PARTITION:OFFSET]…")
@click.option("--until", default="", metavar="TIME", help=f"All older ones. {TIME}")
@DLQ
@AS_JSON
@click.confirmation_option(prompt="Delete these dead letters for good?")
def drop(before: tuple[str, ...], until: str, dlq: str, as_json: bool) -> None:
    """Delete letters for good: all of a partition below an offset, or all older than a time.

    A topic can only be cut at its old end, so there is no choice by reason here.
    """
    from odradek.infra.bus import BusSettings
    from odradek.infra.client.times import parse_time
    from odradek.streams.dead_letters import drop as delete
    from odradek.streams.dead_letters import older_than, place

    if bool(before) == bool(until):
        raise click.UsageError("say PARTITION:OFFSET, or --until TIME")
    bus = BusSettings()
    below = dict(place(text) for text in before)
    if until:
        below = asyncio.run(older_than(bus, parse_time(until, time.time()), dlq=dlq))
    if below:
        asyncio.run(delete(bus, below, dlq=dlq))
    if as_json:
        click.echo(
            msgspec.json.encode({"below": {str(partition): n for partition, n in below.items()}})
        )
        return
    for partition, offset in below.items():
        click.echo(f"dropped below {offset} of partition {partition}")
    if not below:
        click.echo("nothing to drop")


def _filter(*, reason: str, topic: str, since: str, until: str) -> "Filter":
    from odradek.infra.client.times import parse_time
    from odradek.streams.dead_letters import Filter

    now = time.time()
    return Filter(
        reason=reason,
        topic=topic,
        since=parse_time(since, now) if since else None,
        until=parse_time(until, now) if until else None,
    )


async def _letters(dlq: str, only: "Filter") -> "list[Record]":
    from odradek.infra.bus import BusSettings
    from odradek.streams.dead_letters import letters

    return [letter async for letter in letters(BusSettings(), dlq=dlq, only=only)]


async def _replay(
    places: tuple[str, ...], only: "Filter", max_attempts: int, dlq: str
) -> tuple[int, int]:
    from odradek.agents.trust.replay import SignatureRenewal
    from odradek.infra.bus import BusSettings, KafkaAppender, producer, start
    from odradek.schemas.topics import MB
    from odradek.streams.dead_letters import described, find, send_again, worn

    bus = BusSettings()
    renewal = SignatureRenewal.of(bus)
    if places:
        chosen = [await find(bus, at, dlq=dlq) for at in places]
    else:
        chosen = await _letters(dlq, only)
    fresh = [letter for letter in chosen if not worn(letter, max_attempts)]
    # What was too large to put aside came packed, and goes back packed.
    largest = max([18 * MB, *(described(letter)["bytes"] + MB for letter in fresh)])
    client = producer(bus, largest=largest)
    await start(client, bus)
    appender = KafkaAppender(client, bus, REPLAY_S)
    try:
        for letter in fresh:
            may_be_copy = described(letter)["reason"] == EXPIRED
            renew = renewal.renewed if renewal and not may_be_copy else None
            await send_again(appender, letter, bus, renew)
    finally:
        await appender.aclose()
    return len(fresh), len(chosen) - len(fresh)
