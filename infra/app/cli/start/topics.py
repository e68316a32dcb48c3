"""`odradek topics`: the table of topics, on the cluster or as a document."""

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences

if TYPE_CHECKING:
    from odradek.infra.client.retention import TopicPlan

DAY_MS = 24 * 3600 * 1000

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
    """Create, list, describe or plan the topics.

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
@click.option(
    "--window",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How far back records are counted: 30m, 2h, 1d.",
)
@click.option("--steps", type=click.IntRange(1), help="Of the run that is planned.")
@click.option("--run", default="main", show_default=True, help="Whose steps a second count.")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="How long it goes on.")
@AS_JSON
def plan(window: str, steps: int | None, run: str, days: float | None, as_json: bool) -> None:
    """Say how many days and gigabytes a run needs, from the rates of the log as it is.

    \b
    odradek topics plan --steps 10000
    odradek topics plan --days 14 --window 1d

    Sizes are before compression and of one replica, so disks hold less, times their replicas. What
    a topic is needed for is lost once retention deletes it: such topics are named, and how to keep
    them longer. Topics of agents (a2a.*) are not counted; marks of transactions are, as records.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    import time

    from odradek.infra.bus import BusSettings
    from odradek.infra.client.retention import DAY_S, plans, steps_per_s
    from odradek.infra.client.times import parse_time

    now = time.time()
    bus, window_s = BusSettings(), now - parse_time(window, now)
    found = asyncio.run(plans(bus, window_s=window_s, now=now))
    rate = asyncio.run(steps_per_s(bus, run=run, window_s=window_s, now=now)) if steps else 0.0
    if steps and not rate:
        raise click.UsageError(f"no step was made in the last {window}: give --days, or --window")
    length = days or (steps / rate / DAY_S if steps else None)
    if as_json:
        _print_json(
            {
                "days": length,
                "topics": [
                    {
                        **msgspec.to_builtins(each),
                        "day_gb": each.day_gb,
                        "gb": each.held_gb(length) if length else each.full_gb,
                    }
                    for each in found
                ],
            }
        )
        return
    _show_plan(found, length)


def _show_plan(found: "list[TopicPlan]", days: float | None) -> None:
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    held = [each.held_gb(days) if days else each.full_gb for each in found]
    what = f"GB after {days:.3g} days" if days else "GB when full"
    names = ("topic", "records/s", "bytes each", "GB a day", "kept", what, "needed for")
    cells = [
        (each.topic, f"{each.per_s:.3g}", f"{each.record_bytes:,.0f}", f"{each.day_gb:.3g}",
         f"{each.retention_days:g} d" if each.retention_days else "for ever", f"{gb:.3g}",
         each.needed_for)
        for each, gb in zip(found, held, strict=True)
    ]  # fmt: skip
    console = Console()
    console.print(ReadableTable(names, cells))
    console.print(f"together {sum(held):.3g} GB before compression, in one replica")
    for each in found if days else ():
        if each.forgets(days or 0.0):
            console.print(
                f"{each.topic} keeps {each.retention_days:g} days, and the run takes {days:.3g}: "
                f"its beginning will be gone ({each.needed_for}). Keep it longer with "
                f"kafka-configs.sh --alter --topic {each.topic} "
                f"--add-config retention.ms={int((days or 0) * 1.1 * DAY_MS)}, or keep what is "
                "deleted: odradek archive run PLACE --follow",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip


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
