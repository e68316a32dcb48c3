"""What the past of a run costs to use: draws, replay, search, late rewards, subscribers."""

import asyncio
from typing import Any, Final

import click
import msgspec

from odradek.infra.app.bench.harness.processes import two_cores
from odradek.infra.app.bench.harness.site import log_and_broker
from odradek.infra.app.bench.history.rewards import late_rewards
from odradek.infra.app.bench.history.sampler import draws_beside, rebuilding
from odradek.infra.app.bench.history.search import of_a_past, of_steps
from odradek.infra.app.bench.history.subscribers import subscriber_cpu
from odradek.infra.bus import BusSettings, delete_topics

PARTS: Final = ("draws", "rebuild", "past", "steps", "rewards", "subscribers")

OPTIONS: Final = (
    click.Option(["--part", "parts"], multiple=True, type=click.Choice(PARTS),
                 help="Only this; may be given again. Default: all."),
    click.Option(["--repeats"], type=click.IntRange(1), default=5, show_default=True),
    click.Option(["--draws"], type=click.IntRange(10), default=3000, show_default=True,
                 help="Draws of a repeat."),
    click.Option(["--entries"], type=click.IntRange(1000), default=100_000, show_default=True),
    click.Option(["--pointers"], type=click.IntRange(800), default=1_000_000, show_default=True,
                 help="Pointers that are read back."),
    click.Option(["--torchrl/--no-torchrl"], default=True, show_default=True,
                 help="Whether TorchRL is measured, too; it is installed where it is missing."),
    click.Option(["--episodes"], type=click.IntRange(64), default=100_000, show_default=True,
                 help="Of the past that is replayed, re-scored and searched."),
    click.Option(["--log", "log_episodes"], type=click.IntRange(64), default=1_000_000,
                 show_default=True, help="Episodes of the log in which steps are shown."),
    click.Option(["--rewards"], type=click.IntRange(8), default=400, show_default=True,
                 help="Late rewards."),
    click.Option(["--rounds"], type=click.IntRange(1), default=10, show_default=True,
                 help="Measurements with each number of subscribers."),
    click.Option(["--groups"], type=click.IntRange(1), default=40, show_default=True,
                 help="Groups of eight episodes that are played in each of them."),
)  # fmt: skip


def run(**options: Any) -> dict[str, Any]:
    """Measure what the past of a run costs to use.

    `draws_per_s` and `updates_per_s` are entries a CPU second, in draws of 64 from 100,000; with
    updates each draw gives its entries other priorities. `rebuild_s_per_million` is CPU seconds
    for a million pointers. `rebatch_100k_s`, `rescore_100k_s` and `find_100k_s` are whole commands
    over 100,000 small episodes (--episodes), `show_step_s` one in a log of a million (--log), at
    rest, and `show_step_live_s` while the run goes on. `late_reward_p99_s` is from the appending
    of a late reward to whoever reads revisions. `subscriber_cpu` is CPU milliseconds an episode of
    the rollout side, with 1, 2 and 4 subscribers by turns.

    Without ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for the measurement.
    """
    ours = BenchOptions(**options)
    wanted = ours.parts or PARTS
    figures: dict[str, Any] = {}
    if "draws" in wanted:
        figures |= draws_beside(
            repeats=ours.repeats, draws=ours.draws, entries=ours.entries, torchrl=ours.torchrl
        )
    if "rebuild" in wanted:
        figures |= rebuilding(repeats=ours.repeats, pointers=ours.pointers)
    for part in wanted:
        if part not in {"draws", "rebuild"}:
            core = two_cores()[1] if part == "subscribers" else None
            with log_and_broker(core) as (bus, broker):
                figures |= _on_a_log(part, ours, bus, broker)
    return figures


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line."""

    parts: tuple[str, ...]
    repeats: int
    draws: int
    entries: int
    pointers: int
    torchrl: bool
    episodes: int
    log_episodes: int
    rewards: int
    rounds: int
    groups: int


def _on_a_log(
    part: str, options: BenchOptions, bus: BusSettings, broker: int | None
) -> dict[str, Any]:
    """A part that needs a log, whose topics are deleted then."""
    try:
        if part == "past":
            return of_a_past(bus, options.episodes, options.repeats)
        if part == "steps":
            return asyncio.run(of_steps(bus, options.log_episodes))
        if part == "rewards":
            return asyncio.run(late_rewards(bus, options.rewards))
        return asyncio.run(
            subscriber_cpu(bus, broker, repeats=options.rounds, groups=options.groups)
        )
    finally:
        if broker is None:  # it is somebody else's
            asyncio.run(delete_topics(bus))
