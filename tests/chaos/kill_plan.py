"""Which process dies when: a schedule that follows from the seed alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from odradek.infra.runtime import crash_points
from odradek.infra.runtime.crash_points import TRANSACTION
from odradek.streams.stages import STAGE_POINTS

POINTS = {**crash_points.POINTS, **STAGE_POINTS}

IN_TRANSACTION = frozenset(TRANSACTION[:3])
"""Points between begin and commit."""
LATER = {
    "turn": 40,
    "seal": 20,
    "after": 12,
    "opened": 20,
    "run": 20,
    "rewards": 20,
    "ending": 20,
    "sealed": 20,
    "status": 20,
    "offsets": 4,
    "posted": 40,
}
"""How often a point may be passed before it kills, by the beginning of its name; else 3 times."""

PROCESSES: dict[str, tuple[str, ...]] = {
    "dispatch": ("dispatcher",),
    "agent": ("agent-0", "agent-1"),
    "proxy": ("proxy",),
    "intake": ("intake",),
    "assemble": ("assembler-0", "assembler-1"),
    "group": ("grouper",),
    "train": ("trainer",),
    "sample": ("sampler",),
    "rescore": ("rescorer",),
    "engine": ("engine-0", "engine-1"),
    "push": ("push-0", "push-1"),
    "gateway": ("gateway-0", "gateway-1"),
    "http-agent": ("http-agent",),
}
"""Target (a console verb) -> its processes in a run. Engines have no crash points: they die by the
clock, and where they are a target the second one refuses and lags besides. The processes of `push` run
`odradek subscribe`: they, and a webhook that now and then refuses, run where they are a target. So do
the sampler, whose batches the trainer reads then, the rescorer, and gateways, which have no crash points, their
clients, and the clients' agent. Where `http-agent` is a target, `agent-1` is the host of an agent
behind HTTP; it dies as a process of `agent`."""
VERB_OF = {process: verb for verb, processes in PROCESSES.items() for process in processes}


@dataclass(frozen=True)
class Round:
    """A SIGKILL by the clock, and the crash points that the victim meets when it comes back."""

    process: str
    at: float
    """Share of the tasks that are closed when it strikes."""
    wait_s: float
    """Seconds after that."""
    arms: tuple[str, ...] = ()
    """`point:n` of the next starts, one each."""

    @property
    def kills(self) -> int:
        return 1 + len(self.arms)


@dataclass(frozen=True)
class Plan:
    """A run's schedule."""

    seed: int
    rounds: tuple[Round, ...]
    first: dict[str, str] = field(default_factory=dict)
    """Points that processes are armed with from the beginning."""

    @property
    def kills(self) -> int:
        """How many deaths it asks for."""
        return sum(one.kills for one in self.rounds) + len(self.first)


def plan(seed: int, targets: Sequence[str], kills: int) -> Plan:
    """A schedule of `kills` deaths of the targets' processes.

    Half of them strike by the clock, half at crash points; a restarted process is often armed
    again, and a round may follow its predecessor within a second, so that kills hit recoveries.
    """
    chance = random.Random(f"{seed}/{','.join(sorted(targets))}/{kills}")
    pool = [process for target in targets for process in PROCESSES[target]]
    first: dict[str, str] = {}
    if kills > 1 and chance.random() < 0.5:
        process = chance.choice(pool)
        if VERB_OF[process] in POINTS:
            first[process] = drawn_point(chance, process)
    rounds: list[Round] = []
    left = kills - len(first)
    while left > 0:
        process = chance.choice(pool)
        arms = min(chance.choice((0, 1, 1, 1, 2)), left - 1)
        arms = arms if VERB_OF[process] in POINTS else 0
        soon = bool(rounds) and chance.random() < 0.3
        rounds.append(
            Round(
                process,
                at=0.0 if soon else chance.uniform(0.02, 0.85),
                wait_s=chance.uniform(0.0, 1.5),
                arms=tuple(drawn_point(chance, process) for _ in range(arms)),
            )
        )
        left -= rounds[-1].kills
    # Rounds that do not follow at once strike in the order of their share, evenly on the whole.
    shares = iter(sorted(one.at for one in rounds if one.at))
    ordered, last = [], 0.0
    for one in rounds:
        last = next(shares) if one.at else last
        ordered.append(Round(one.process, last, one.wait_s, one.arms))
    return Plan(seed, tuple(ordered), first)


def drawn_point(chance: random.Random, process: str) -> str:
    """A crash point of a process, and at which passing it kills."""
    points = POINTS[VERB_OF[process]]
    within = [point for point in points if point in IN_TRANSACTION]
    # Half of the crashes of a process with transactions are inside one.
    name = chance.choice(within if within and chance.random() < 0.5 else points)
    most = LATER.get(name.split("_", maxsplit=1)[0], 3)
    if VERB_OF[process] == "train":
        most = 2
    return f"{name}:{chance.randint(1, most)}"
