"""`odradek topics`: the table of topics, on the cluster or as a document."""

import asyncio
from importlib.metadata import version
from typing import Any

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences

AGENT = click.option(
    "--agent", "agents", multiple=True, metavar="NAME", help="An agent's topics too; repeatable."
)
CLIENTS = click.option(
    "--client-group", "clients", multiple=True, metavar="NAME",
    help="The reply topic of a group of A2A clients too; repeatable.",
)  # fmt: skip
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group(cls=WholeSentences)
def command() -> None:
    """Create, list or describe the topics.

    ODRADEK_TOPIC_PREFIX goes before every name. Partition counts never change later, because keys
    and ids depend on them: choose ODRADEK_TOPIC_PARTITIONS before the first `apply`.
    """


@command.command()
@AGENT
@CLIENTS
@AS_JSON
def apply(agents: tuple[str, ...], clients: tuple[str, ...], as_json: bool) -> None:
    """Create the topics that are missing; what is there is only checked."""
    from odradek.infra.bus import BusSettings, ensure_topics, rows

    bus = BusSettings()
    required = rows(agents, clients)
    created = asyncio.run(ensure_topics(bus, required))
    if as_json:
        _print_json({"created": created, "there": len(required) - len(created)})
        return
    for name in created:
        click.echo(f"created {name}")
    click.echo(f"{len(created)} created, {len(required) - len(created)} were there")


@command.command("list")
@AS_JSON
def list_topics(as_json: bool) -> None:
    """List this installation's topics on the cluster, with what the table says about them."""
    topics = asyncio.run(_on_cluster())
    if as_json:
        _print_json({"topics": topics})
        return
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    cells = [
        (row["name"], str(row["partitions"] or "missing"), row["retention"], row["key"],
         row["about"])
        for row in topics
    ]  # fmt: skip
    Console().print(ReadableTable(("topic", "partitions", "retention", "key", "what"), cells))


@command.command()
@click.option("--server", default="localhost:9092", show_default=True, help="For its `servers`.")
def asyncapi(server: str) -> None:
    """Print an AsyncAPI 3 document of all topics and event types, as JSON."""
    from odradek.infra.bus import BusSettings
    from odradek.schemas.asyncapi import document

    prefix = BusSettings().topic_prefix
    specification = document(version=version("odradek"), server=server, prefix=prefix)
    click.echo(msgspec.json.format(msgspec.json.encode(specification), indent=2))


async def _on_cluster() -> list[dict[str, Any]]:
    """The table's topics, present or not, and agents' topics that are there."""
    from odradek.infra.bus import BusSettings, admin, rows, running
    from odradek.schemas.errors import UnknownTopic
    from odradek.schemas.topics import find

    bus = BusSettings()
    async with running(admin(bus), bus) as client:
        existing = [
            name for name in await client.list_topics() if name.startswith(bus.topic_prefix)
        ]
        described = await client.describe_topics(existing) if existing else []
    partitions = {bus.bare(topic["topic"]): len(topic["partitions"]) for topic in described}
    names = [name for name, _ in rows()]
    names += sorted(name for name in partitions if name not in names)
    listed = []
    for name in names:
        try:
            row = find(name)
        except UnknownTopic:
            continue
        retention = ["compact"] if row.compact else []
        retention += [f"{row.retention_ms // (24 * 3600 * 1000)} d"] if row.retention_ms > 0 else []
        listed.append(
            {
                "name": bus.topic(name),
                "partitions": partitions.get(name, 0),
                "key": row.key,
                "retention": ", ".join(retention),
                "about": row.about,
            }
        )
    return listed


def _print_json(answer: dict[str, Any]) -> None:
    click.echo(msgspec.json.encode(answer))
