"""The verbs that go through a past: replay, rescore, find and show, as users run them."""

import asyncio
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any, Final

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.bench.history.command import MeasuredCommand, beside, odradek
from odradek.infra.app.bench.history.writer import (
    GROUP,
    NEEDLE,
    NEEDLE_EVERY,
    NEEDLE_IDS,
    PastWriter,
    opened_past,
    write_past,
)
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.trainer.feed.readers.batch_reader import LogGroups

TRIVIAL: Final = "odradek.infra.app.bench.history.search:brief"
SHOWN: Final = 9
"""Steps that are shown, over the whole past."""
AGAIN: Final = "rl.batches.again"
LIVE_S: Final = 0.05
"""Between two groups of a run that goes on."""


def brief(conversation: Any) -> float:
    """The trivial reward function."""
    return float(len(conversation.turns))


def of_a_past(bus: BusSettings, episodes: int, repeats: int) -> dict[str, Any]:
    """Replay, re-scoring, search and reading of a past of so many episodes, in seconds.

    Memory is flat where a tenth of the past takes as much.
    """
    env, small = kafka(bus), bus.model_copy(update={"topic_prefix": f"{bus.topic_prefix}small."})
    past = asyncio.run(write_past(bus, episodes))
    asyncio.run(write_past(small, max(GROUP, episodes // 10)))
    seconds: dict[str, list[float]] = {}
    for repeat in range(repeats):
        name = f"{AGAIN}{repeat}"
        replayed = odradek("replay", "--batches", ":", "--to", name, "--json", env=env)
        scored = _rescored(env, repeat)
        for what, made in (("rebatch", replayed), ("rescore", scored), *_searches(env, episodes)):
            seconds.setdefault(what, []).append(made.seconds)
    few = kafka(small)
    of_small = odradek("replay", "--batches", ":", "--to", AGAIN, "--json", env=few)
    return {
        "past": {"episodes": past.episodes, "written_s": round(past.seconds, 1)},
        "replay_reads_per_s": round(_reads_per_s(bus)),
        "rebatch_100k_s": _median(seconds["rebatch"]),
        "rescore_100k_s": _median(seconds["rescore"]),
        "find_100k_s": {
            kind: _median(seconds[kind]) for kind in ("words", "regex", "tokens")
        },
        "rss_mb": {
            "rebatch": round(replayed.rss_mb), "rebatch_of_a_tenth": round(of_small.rss_mb),
            "rescore": round(scored.rss_mb),
            "rescore_of_a_tenth": round(_rescored(few, 0).rss_mb),
        },
        "past_repeats": {what: _rounded(each) for what, each in seconds.items()},
    }  # fmt: skip


def _median(seconds: list[float]) -> float:
    return round(statistics.median(seconds), 3)


def _rounded(seconds: list[float]) -> list[float]:
    return [round(each, 3) for each in seconds]


def _rescored(env: Mapping[str, str], repeat: int) -> MeasuredCommand:
    arguments = ("--component", "game", "--name", f"bench-{repeat}", "--json")
    return odradek("rescore", "--reward", TRIVIAL, *arguments, env=env)


def _searches(env: Mapping[str, str], episodes: int) -> list[tuple[str, MeasuredCommand]]:
    """Each kind of search through the whole past. Raises ProjectError where too little is found."""
    kinds = {
        "words": (NEEDLE,),
        "regex": ("--regex", NEEDLE.replace("few", "(few|many)")),
        "tokens": ("--tokens", " ".join(map(str, NEEDLE_IDS))),
    }
    wanted, made = -(-episodes // NEEDLE_EVERY), []
    for kind, arguments in kinds.items():
        found = odradek("find", *arguments, "--limit", "0", "--json", env=env)
        if (lines := found.output.count("\n")) != wanted:
            raise ProjectError(
                f"`odradek find` by {kind} has {lines} lines, and {wanted} are there"
            )
        made.append((kind, found))
    return made


def _reads_per_s(bus: BusSettings) -> float:
    """Episodes a second that a trainer's reader takes from the past's batches."""
    thread = LoopThread()
    try:
        groups = LogGroups(thread, bus, f"{AGAIN}0", ends=True)
        groups.open(0)
        try:
            began, episodes = time.perf_counter(), 0
            while not groups.ended():
                group = groups.next(1.0)
                episodes += len(group.episodes) if group is not None else 0
            return episodes / (time.perf_counter() - began)
        finally:
            groups.close()
    finally:
        thread.close()


async def of_steps(bus: BusSettings, episodes: int) -> dict[str, Any]:
    """`odradek show step N` in a log of so many episodes: at rest, and while the run goes on."""
    async with opened_past(bus, words=False) as writer:
        past = await writer.write(episodes)
        numbers = Random(0).choices(range(1, past.steps + 1), k=SHOWN)  # noqa: S311 - no secret
        at_rest = [(await _shown(bus, number)).seconds for number in numbers]
        going_on = asyncio.create_task(_go_on(writer))
        try:
            live = [(await _shown(bus, number)).seconds for number in numbers]
            if going_on.done():
                going_on.result()
        finally:
            going_on.cancel()
            with suppress(asyncio.CancelledError):
                await going_on
    return {
        "show_step_s": _median(at_rest),
        "show_step_live_s": _median(live),
        "show_step": {
            "episodes": past.episodes, "steps": past.steps, "written_s": round(past.seconds, 1),
            "repeats": _rounded(at_rest), "live_repeats": _rounded(live),
        },
    }  # fmt: skip


async def _shown(bus: BusSettings, number: int) -> MeasuredCommand:
    return await beside("show", "step", str(number), "--json", env=kafka(bus))


async def _go_on(past: PastWriter) -> None:
    """A run that goes on: a step of four groups at a time."""
    while True:
        await past.write(4 * GROUP)
        await asyncio.sleep(LIVE_S)
