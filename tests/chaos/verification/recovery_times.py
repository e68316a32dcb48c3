"""How long after a kill the first new result of the victim's work stands in the log, committed.

| victim | its result | its work |
|---|---|---|
| dispatcher | GroupOpened | tasks of its partitions |
| agent host | EpisodeOpened | requests of its partitions |
| proxy | Turn of another writer | all calls |
| intake | Reward | rewards of its partitions |
| assembler | Episode | stories of its partitions |
| grouper | Batch | tasks of its partitions |
| trainer | an entry of a new incarnation | the run |

Times are those of the broker's append where the topic has it, else the writer's, on one machine.
A kill after which nothing was left to do is not measured. One that struck before the victim said which
partitions it has is measured on those of its start before, which are still its; where it never said
any, it is not measured. `summary` says how many there were of each.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from odradek.schemas import events
from odradek.schemas.ids import partition_for
from tests.chaos.kill_plan import VERB_OF
from tests.chaos.verification.log import Log
from tests.chaos.world import Death

Result = tuple[float, int]
"""When, and on which input partition."""


def results(log: Log, partitions: int) -> dict[str, list[Result]]:
    """By console verb, every result in the order of time."""
    turns, episodes = log.turns, log.episodes

    def of(records: Iterable[Any], kind: type, name: Callable[[Any], str]) -> list[Result]:
        found = [
            (record.timestamp / 1000, partition_for(name(event), partitions))
            for record, event in records
            if isinstance(event, kind)
        ]
        return sorted(found)

    return {
        "dispatch": of(episodes, events.GroupOpened, lambda event: event.task_id),
        "agent": of(turns, events.EpisodeOpened, lambda event: event.episode_id),
        "intake": of(turns, events.Reward, lambda event: event.episode_id),
        "assemble": of(episodes, events.Episode, lambda event: event.episode_id),
        "group": of(log.batches, events.Batch, lambda event: event.task_id),
    }


def measure(log: Log, deaths: Sequence[Death], partitions: int) -> list[dict[str, Any]]:
    """Each kill with its recovery in seconds, None where nothing was left to do."""
    told = results(log, partitions)
    writers = first_turns(log)
    starts = incarnations(log)
    found = []
    for death in deaths:
        verb = VERB_OF[death.process]
        if verb == "proxy":
            seconds = _first(writers, death.at)
        elif verb == "train":
            seconds = _first(starts, death.at)
        elif verb not in told:
            seconds = None  # what it was sampling, or posting, another one does
        else:
            seconds = _after(told[verb], death.at, set(death.partitions))
        found.append(
            {
                "process": death.process,
                "at": round(death.at, 3),
                "point": death.point,
                "starting": not death.ready,
                "early": verb in told and death.early,
                "unplaced": verb in told and not death.partitions,
                "recovery_s": None if seconds is None else round(seconds, 3),
            }
        )
    return found


def summary(deaths: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Quantiles over measured kills, and how many were not measured, and why.

    The trainer stands apart: its start is that of Python, torch and TRL.
    """
    trainers, others = [], []
    for death in deaths:
        if (seconds := death["recovery_s"]) is not None:
            (trainers if VERB_OF[death["process"]] == "train" else others).append(seconds)
    missing = [death for death in deaths if death["recovery_s"] is None]
    unplaced = sum(death["unplaced"] for death in missing)
    return {
        "recovery_s": _quantiles(others),
        "trainer_recovery_s": _quantiles(trainers),
        "early_kills": sum(death["early"] for death in deaths),
        "unmeasured": {"nothing_left": len(missing) - unplaced, "unplaced": unplaced},
    }


def _quantiles(seconds: Sequence[float]) -> dict[str, float | int | None]:
    return {"p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99), "n": len(seconds)}


def first_turns(log: Log) -> list[float]:
    """When each writer's first turn was appended."""
    first: dict[str, float] = {}
    for record, event in log.turns:
        if isinstance(event, events.Turn):
            at = record.timestamp / 1000
            first[event.writer] = min(first.get(event.writer, at), at)
    return sorted(first.values())


def incarnations(log: Log) -> list[float]:
    """When each start of the trainer first told something."""
    first: defaultdict[int, float] = defaultdict(lambda: float("inf"))
    for record, step in log.steps:
        first[step.incarnation] = min(first[step.incarnation], record.timestamp / 1000)
    return sorted(first.values())


def _first(times: Sequence[float], at: float) -> float | None:
    index = bisect.bisect_right(times, at)
    return times[index] - at if index < len(times) else None


def _after(found: Sequence[Result], at: float, held: set[int]) -> float | None:
    index = bisect.bisect_right(found, (at, 1 << 30))
    for when, partition in found[index:]:
        if partition in held:
            return when - at
    return None


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of the values do not exceed (nearest rank)."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 100) * len(ordered) // 100) - 1))]
