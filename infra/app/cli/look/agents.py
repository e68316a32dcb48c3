"""`odradek agents`: the registry of agents."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
KEYS = click.option(
    "--keys",
    type=click.Path(exists=True, path_type=Path),
    help="Folder, or file, with the public keys of cards.  [ODRADEK_TRUST_VERIFICATION_KEYS]",
)


@click.group(cls=WholeSentences)
def command() -> None:
    """List the agents, and show, publish or remove their cards.

    A host publishes its agent's card when it starts, to a2a.cards. The card stays when the host
    ends, so that an agent can be found and asked while it is offline.

    \b
    odradek agents list
    odradek agents show hilo --json
    odradek agents publish hilo --card hilo.json --sign-with keys/hilo.json
    odradek agents remove hilo
    """  # noqa: D301 - click reads the backslash


@command.command(name="list", short_help="List the agents: who is there now, lag and signature.")
@KEYS
@AS_JSON
def list_(keys: Path | None, as_json: bool) -> None:
    """List every agent that has a card.

    HOSTS counts who reads the agent's requests now, LAG the requests that no host has finished.
    SIGNED says whose key signed the card, `unsigned`, or WRONG and why.
    """
    rows = asyncio.run(_registered(keys))
    if as_json:
        _print_json({"agents": rows})
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [
        (row["agent"], str(len(row["hosts"])), str(row["lag"]), row["signature"],
         row["card"].get("version", ""), row["card"].get("description", ""))
        for row in rows
    ]  # fmt: skip
    heads = ("agent", "hosts", "lag", "signed", "version", "description")
    Console().print(ReadableTable(heads, cells))


@command.command(short_help="Show an agent's card, and who is there now.")
@click.argument("agent")
@KEYS
@AS_JSON
def show(agent: str, keys: Path | None, as_json: bool) -> None:
    """Show the card of AGENT, its hosts, its lag, and whose key signed the card."""
    row = next((row for row in asyncio.run(_registered(keys)) if row["agent"] == agent), None)
    if row is None:
        raise click.ClickException(f"no agent {agent!r} has a card: `odradek agents list`")
    if as_json:
        _print_json(row)
        return
    click.echo(f"published  {row['published']}")
    click.echo(f"signed     {row['signature']}")
    click.echo(f"lag        {row['lag']}")
    for host in row["hosts"] or ["none"]:
        click.echo(f"host       {host}")
    click.echo(msgspec.json.format(msgspec.json.encode(row["card"]), indent=2))


@command.command(short_help="Publish a card, for an agent whose host does not run yet.")
@click.argument("agent")
@click.option(
    "--card",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON or TOML with the card's fields.  [ODRADEK_AGENT_CARD]",
)
@click.option(
    "--sign-with",
    "key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the private key that signs it.  [ODRADEK_AGENT_CARD_KEY]",
)
def publish(agent: str, file: Path | None, key: Path | None) -> None:
    """Publish the card of AGENT, as its host would: requests to it wait until one runs.

    The file holds fields of A2A's AgentCard: name, description, version, provider, skills,
    defaultInputModes, defaultOutputModes, documentationUrl, iconUrl. All are optional.
    """
    asyncio.run(_publish(agent, file, key))
    click.echo(f"published the card of {agent}")


@command.command(short_help="Take an agent's card away.")
@click.argument("agent")
def remove(agent: str) -> None:
    """Take the card of AGENT away, by a tombstone. Its topics and its tasks stay.

    Stop its hosts first: one that starts again publishes the card again.
    """
    asyncio.run(_remove(agent))
    click.echo(f"removed the card of {agent}")


async def _registered(keys: Path | None) -> list[dict[str, Any]]:
    from google.protobuf.json_format import MessageToDict

    from odradek.agents.cards.registry import all_cards, presence
    from odradek.agents.cards.signatures import read_keys, standing
    from odradek.agents.trust.settings import TrustSettings
    from odradek.infra.bus import BusSettings, require_topics
    from odradek.schemas.topics import CARDS

    bus = BusSettings()
    await require_topics(bus, [CARDS.name])
    keys = keys or TrustSettings().verification_keys
    trusted = read_keys(keys) if keys is not None else {}
    cards = await all_cards(bus)
    present = await presence(bus, list(cards))
    rows = []
    for agent, known in cards.items():
        signed = standing(agent, known.card, trusted)
        rows.append(
            {
                "agent": agent,
                "hosts": list(present[agent].hosts),
                "lag": present[agent].lag,
                "signature": str(signed),
                "signed_by": signed.kid,
                "published": datetime.fromtimestamp(known.published_at, UTC).isoformat(),
                "card": MessageToDict(known.card),
            }
        )
    return rows


async def _publish(agent: str, file: Path | None, key: Path | None) -> None:
    from odradek.agents.cards.registry import publish_card
    from odradek.agents.host.cards import OwnCards
    from odradek.agents.settings import AgentSettings
    from odradek.infra.app.cli.options import given
    from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics, rows

    bus = BusSettings()
    settings = AgentSettings(**given(name=agent, card=file, card_key=key))
    cards = OwnCards.of(settings, prefix=bus.topic_prefix)
    await ensure_topics(bus, rows(agents=[agent]))
    appender = await KafkaAppender.connect(bus)
    try:
        await publish_card(appender, agent, cards.public)
    finally:
        await appender.aclose()


async def _remove(agent: str) -> None:
    from odradek.agents.cards.registry import all_cards, presence, remove_card
    from odradek.infra.bus import BusSettings, KafkaAppender, require_topics
    from odradek.schemas.topics import CARDS

    bus = BusSettings()
    await require_topics(bus, [CARDS.name])
    if agent not in await all_cards(bus):
        raise click.ClickException(f"no agent {agent!r} has a card: `odradek agents list`")
    hosts = (await presence(bus, [agent]))[agent].hosts
    if hosts:
        raise click.ClickException(
            f"{agent} is served by {len(hosts)} host(s): stop them first, then remove its card"
        )
    appender = await KafkaAppender.connect(bus)
    try:
        await remove_card(appender, agent)
    finally:
        await appender.aclose()


def _print_json(answer: dict[str, Any]) -> None:
    click.echo(msgspec.json.encode(answer))
