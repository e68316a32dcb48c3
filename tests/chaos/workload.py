"""What a run is asked for; its tasks follow from the seed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from odradek.schemas.events import Task, Timeouts, raw
from tests.chaos.kill_plan import Round
from tests.chaos.verification import oracle

if TYPE_CHECKING:
    from tests.chaos.run import Run

GROUP_SIZE = 4
ROWS_PER_STEP = 256
SMALL, FEW_ROWS = 1000, 64
"""Runs of fewer episodes have smaller steps, or their trainer would never make one."""
TIMEOUTS = Timeouts(call_s=20, attempt_s=60, seal_s=30, reward_s=60, group_s=900)
STALL_S = 90.0
"""No batch and no step for so long: the run is stuck."""


@dataclass
class Workload:
    """What a run is asked for."""

    seed: int = 0
    episodes: int = 400
    kills: int = 4
    targets: tuple[str, ...] = ("proxy", "agent", "assemble", "group", "train")
    model: Path = Path()
    """Folder of the trainer's model."""
    wrap: Callable[[str, tuple[str, ...]], tuple[str, ...]] = lambda _, command: command
    env: Mapping[str, str] = field(default_factory=dict)
    paced: bool = False
    """Whether `during` says what may be published."""
    quiet: bool = False
    """Whether some samples get no reward, and so end by their deadline."""
    timeouts: Timeouts = TIMEOUTS
    stall_s: float = STALL_S
    processes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Verbs and their options of processes beside, or in place of, the usual; () for none."""
    rounds: tuple[Round, ...] = ()
    """A schedule made by hand, in place of the seed's."""
    first: Mapping[str, str] = field(default_factory=dict)
    """Crash points that processes are armed with at the beginning, with such a schedule."""
    upsets: int | None = 0
    """How many hosts `during` upsets, so that they lose what they run; None: not bounded."""
    may_end: frozenset[str] = frozenset()
    """Processes that may end by themselves, and be started again, by what is done in `during`."""
    strays: set[str] = field(default_factory=set)
    """Ids of turns that `during` writes as a hostile writer would."""
    during: Callable[["Run"], Awaitable[None]] | None = None
    """What happens beside the plan; the run waits for its end."""

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step."""
        return ROWS_PER_STEP if self.episodes >= SMALL else FEW_ROWS

    @property
    def tasks(self) -> list[Task]:
        """The tasks, whose ids and inputs follow from the seed."""
        kind = oracle.QUIET if self.quiet else "s"
        names = [
            f"{kind}{self.seed}-{number:05d}" for number in range(-(-self.episodes // GROUP_SIZE))
        ]
        return [
            Task(
                task_id=name,
                agent=oracle.AGENT,
                input=raw({"seed": self.seed, "task": name}),
                item=str(number),
                group_size=GROUP_SIZE,
                rewards=oracle.REWARDS,
                failure_reward=oracle.FAILURE,
                timeouts=self.timeouts,
            )
            for number, name in enumerate(names)
        ]
