"""Which optimizer step each policy version stands for.

Versions are never reused: a trainer that restarts from step 10 publishes those weights once more
under a number that nobody had. So staleness is counted in steps, not in version numbers, or a
resumed run would refuse rows that an uninterrupted one takes. The ledger (`rl.steps.v1`) tells a
restarted trainer, or one that replays another run, what each version was.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from odradek.schemas.events import Step


@dataclass
class Lineage:
    """Versions of one run and their steps. Safe to use from several threads."""

    steps: dict[int, int] = field(default_factory=dict)
    fixed: bool = False
    """Of a replay: its own versions are not those that its episodes were sampled with."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def from_ledger(cls, steps: Iterable[Step]) -> "Lineage":
        """What a run's own ledger entries say, in the order in which they were written."""
        return cls({step.version: step.step for step in steps if step.version})

    def publish(self, version: int, step: int) -> None:
        """Note that the weights after `step` steps are about to be called `version`."""
        if self.fixed:
            return
        with self._lock:
            self.steps[version] = step

    def step_of(self, version: int) -> int:
        """The step whose weights a version is.

        A version that nobody noted lies between those that were: it counts as the nearest older
        one. Below the oldest it is counted down one by one, and with nothing noted at all version
        v is what an undisturbed run publishes after v - 1 steps.
        """
        with self._lock:
            if version in self.steps:
                return self.steps[version]
            if not self.steps:
                return version - 1
            older = [known for known in self.steps if known < version]
            if older:
                return self.steps[max(older)]
            first = min(self.steps)
            return self.steps[first] - (first - version)

    def staleness(self, version: int | None, at_step: int) -> int:
        """Optimizer steps between the weights of `version` and a step that starts at `at_step`.

        Never negative: weights of a line that a crash cut off are as far ahead as they are behind,
        but they lie within the same bound. None (nobody told the version) counts as fresh.
        """
        if version is None:
            return 0
        return max(at_step - self.step_of(version), 0)
