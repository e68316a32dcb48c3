"""`odradek dlq`: dead letters."""

import asyncio
from typing import Any

import click
import msgspec

REASON = click.option("--reason", default="", help="Only with this reason, such as late_reward.")
TOPIC = click.option("--topic", default="", help="Only from this topic.")
DLQ = click.option(
    "--dlq", default="rl.dlq.v1", show_default=True, help="Or an agent's: a2a.dlq.NAME."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group()
def command() -> None:
    """Look at dead letters, and send them again once their cause is gone.

    A dead letter holds the original bytes; its headers say from where it came and why.
    """


@command.command("list")
@REASON
@TOPIC
@DLQ
@AS_JSON
def list_letters(reason: str, topic: str, dlq: str, as_json: bool) -> None:
    """List dead letters: place, origin and reason, without content."""
    from odradek.streams.deadletter import described

    found = [described(letter) for letter in asyncio.run(_letters(reason, topic, dlq))]
    if as_json:
        click.echo(msgspec.json.encode({"letters": found}))
        return
    for one in found:
        origin = f"{one.get('topic')}[{one.get('partition')}]@{one.get('offset')}"
        told = (one["at"], one.get("reason", "?"), origin, one["key"] or "-", one.get("detail", ""))
        click.echo("  ".join(told))
    click.echo(f"{len(found)} dead letters")


@command.command()
@click.argument("at", metavar="PARTITION:OFFSET")
@DLQ
def show(at: str, dlq: str) -> None:
    """Show one dead letter whole: its headers, then its bytes as text."""
    from odradek.infra.bus import BusSettings
    from odradek.streams.deadletter import find

    letter = asyncio.run(find(BusSettings(), at, dlq=dlq))
    for name, value in letter.headers:
        click.echo(f"{name}: {value.decode(errors='replace')}")
    click.echo()
    click.echo((letter.value or b"").decode(errors="backslashreplace"))


@command.command()
@click.argument("places", nargs=-1, metavar="[PARTITION:OFFSET]…")
@REASON
@TOPIC
@DLQ
def replay(places: tuple[str, ...], reason: str, topic: str, dlq: str) -> None:
    """Send letters' original bytes again to the topic that they came from.

    Name places, or say which by --reason or --topic. The letters stay where they are; what is
    sent again counts its attempts.
    """
    if not places and not reason and not topic:
        raise click.UsageError("name letters by PARTITION:OFFSET, or say --reason or --topic")
    sent = asyncio.run(_replay(places, reason, topic, dlq))
    click.echo(f"{sent} sent again")


@command.command()
@click.argument("before", metavar="PARTITION:OFFSET")
@DLQ
@click.confirmation_option(prompt="Delete these dead letters for good?")
def drop(before: str, dlq: str) -> None:
    """Delete all letters of a partition below an offset, for good."""
    from odradek.infra.bus import BusSettings
    from odradek.streams.deadletter import drop as delete
    from odradek.streams.deadletter import place

    partition, offset = place(before)
    asyncio.run(delete(BusSettings(), {partition: offset}, dlq=dlq))
    click.echo(f"dropped below {offset} of partition {partition}")


async def _letters(reason: str, topic: str, dlq: str) -> list[Any]:
    from odradek.infra.bus import BusSettings
    from odradek.streams.deadletter import letters

    return [one async for one in letters(BusSettings(), reason=reason, topic=topic, dlq=dlq)]


async def _replay(places: tuple[str, ...], reason: str, topic: str, dlq: str) -> int:
    from odradek.infra.bus import BusSettings, KafkaAppender
    from odradek.streams.deadletter import find, send_again

    bus = BusSettings()
    if places:
        chosen = [await find(bus, at, dlq=dlq) for at in places]
    else:
        chosen = await _letters(reason, topic, dlq)
    appender = await KafkaAppender.connect(bus)
    try:
        for letter in chosen:
            await send_again(appender, letter)
    finally:
        await appender.aclose()
    return len(chosen)
