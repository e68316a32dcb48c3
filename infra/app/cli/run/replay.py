"""`odradek replay`: past batches, written again."""

import asyncio

import click
import msgspec


@click.command()
@click.option(
    "--batches",
    required=True,
    metavar="FROM:TO",
    help="Offsets on the source; TO is the first left out. 0:40, 12: and :40 are spans, too.",
)
@click.option("--to", "to", required=True, metavar="TOPIC", help="Where to; made if missing.")
@click.option(
    "--from", "source", default="rl.batches.v1", show_default=True, help="Where the batches stand."
)
@click.option("--append", is_flag=True, help="Also to a topic that already holds batches.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, with each batch's digest.")
def command(batches: str, to: str, source: str, append: bool, as_json: bool) -> None:
    """Write a past run's batches again, to train on them once more.

    \b
    odradek replay --batches 0:40 --to rl.batches.again
    ODRADEK_TRAINER_BATCHES=rl.batches.again odradek train …

    Batches are pointers, so no token is copied. A fresh trainer on the new topic ends with the
    same batch digests and, on CPU with a fixed seed, with the same weights.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    from odradek.infra.bus import BusSettings
    from odradek.streams.replay import replay

    replayed = asyncio.run(replay(BusSettings(), batches, to, source=source, append=append))
    if as_json:
        click.echo(msgspec.json.encode(replayed))
    else:
        click.echo(f"{replayed.batches} batches with {replayed.episodes} episodes are on {to}")
