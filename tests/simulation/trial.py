"""Trying seeds: one, or many on several cores; and making a failure small."""

import hashlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import count
from typing import Any, NamedTuple

from tests.simulation.checks import broken
from tests.simulation.failure import Failure
from tests.simulation.planted import PLANTED, planted
from tests.simulation.scenario import Scenario
from tests.simulation.world import World


class Verdict(NamedTuple):
    """What became of a seed."""

    seed: int
    failures: tuple[Failure, ...]
    trace: tuple[str, ...]
    """The faults that were applied, in their order."""
    faults: tuple[int, ...]
    """Their numbers: what `only` takes."""
    digest: str
    """Of all that stands on all topics: equal for equal worlds."""
    kills: int
    records: int
    episodes: int
    steps: int
    """Callbacks that were run."""


def attempt(
    seed: int,
    plant: str = "",
    only: tuple[int, ...] | None = None,
    scenario: Scenario | None = None,
) -> Verdict:
    """Live through one seed, and judge it.

    Args:
        seed: Decides all.
        plant: Name of a fault to plant in the code; the world has what it needs to show.
        only: Apply only the faults of these numbers.
        scenario: Instead of the seed's own.
    """
    if plant:
        scenario = PLANTED[plant].scenario(seed)
    world = World(seed, scenario=scenario, only=set(only) if only is not None else None)
    world.run(planted(plant) if plant else None)
    failures = broken(world)
    digest = hashlib.sha256()
    records = 0
    for topic in sorted(world.cluster.topics):
        for message in world.cluster.committed(topic):
            records += 1
            digest.update(repr((message[:5], message.timestamp)).encode())
    return Verdict(
        seed,
        tuple(failures),
        tuple(f"{at:8.3f} s  {what}" for _, at, what in world.trouble.applied),
        tuple(number for number, _, _ in world.trouble.applied if number >= 0),
        digest.hexdigest(),
        world.kills,
        records,
        len(world.opened),
        world.loop.steps,
    )


def shrink(verdict: Verdict, plant: str = "", *, tries: int = 60) -> Verdict:
    """The same seed with as few faults as still make one of the same checks fail."""
    best = verdict
    checks = {failure.check for failure in verdict.failures}
    size = max(len(best.faults) // 2, 1)
    while tries > 0:
        for start in range(0, len(best.faults), size):
            kept = best.faults[:start] + best.faults[start + size :]
            tries -= 1
            found = attempt(verdict.seed, plant, kept)
            if checks & {failure.check for failure in found.failures}:
                best = found
                break
        else:
            if size == 1:
                break
            size //= 2
    return best


def attempts(
    start: int, *, jobs: int, plant: str = "", seeds: int | None = None
) -> Iterator[Verdict]:
    """Verdicts of seeds from `start` on, as they come; without an end unless `seeds` is given."""
    numbers = iter(count(start) if seeds is None else range(start, start + seeds))
    if jobs == 1:
        yield from (attempt(seed, plant) for seed in numbers)
        return
    with ProcessPoolExecutor(jobs, initializer=_deaf) as pool:
        waiting: set[Any] = set()
        try:
            while True:
                for seed in numbers:
                    waiting.add(pool.submit(attempt, seed, plant))
                    if len(waiting) >= 2 * jobs:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (one.result() for one in done)
        finally:
            for one in waiting:
                one.cancel()


def _deaf() -> None:
    """Let ctrl-C end the one who waits for us, and us with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Cores that we may use."""
    return len(os.sched_getaffinity(0))
