"""Which optimizer step each policy version stands for.

Versions are never reused: a trainer that restarts from step 10 publishes those weights once more
under a number that nobody had. So staleness is counted in steps, not in version numbers, or a
resumed run would refuse rows that an uninterrupted one takes. The ledger (`rl.steps.v1`) tells a
restarted trainer, or one that replays another run, what each version was.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock

from odradek.schemas.events import Step


@dataclass
class Lineage:
    """Versions of one run and their steps. Safe to use from several threads."""

    steps: dict[int, int] = field(default_factory=dict)
    fixed: bool = False
    """Whether it is of a replay: its own versions are not those that sampled its episodes."""
    more: Callable[[], Iterable[Step]] | None = field(default=None, repr=False)
    """Reads what the ledger has got since, where the run goes on beside the one that asks."""
    _incarnation: int = field(default=0, repr=False)
    _cut: dict[int, int] = field(default_factory=dict, repr=False)
    """By version, the lowest step that a later start went on from."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def from_ledger(cls, steps: Iterable[Step]) -> "Lineage":
        """Read a run's own ledger entries, in the order in which they were written."""
        lineage = cls()
        lineage.hear(steps)
        return lineage

    def hear(self, steps: Iterable[Step]) -> None:
        """Read more of the ledger; entries that were read already change nothing."""
        for entry in steps:
            if entry.incarnation > self._incarnation:
                self._incarnation = entry.incarnation
                self.cut_off(entry.step)
            if entry.version:  # the first to name a version takes it, later ones have it in force
                with self._lock:
                    self.steps.setdefault(entry.version, entry.step)

    def cut_off(self, step: int) -> None:
        """Note that a start continued from `step`: weights published beyond it are abandoned."""
        with self._lock:
            for version in self.steps:
                self._cut[version] = min(self._cut.get(version, step), step)

    def publish(self, version: int, step: int) -> None:
        """Note that the weights after `step` steps are about to be called `version`."""
        if self.fixed:
            return
        with self._lock:
            self.steps[version] = step

    def step_of(self, version: int) -> int:
        """The step from which a version's staleness is counted.

        Weights n steps beyond where the line was cut off are 2n steps away from those n steps
        further on the new line: they count as if they lay n steps before the cut, never as fresh.

        A version that nobody noted lies between those that were: it counts as the nearest older
        one. Below the oldest it is counted down one by one, and with nothing noted at all version
        v is what an undisturbed run publishes after v - 1 steps.
        """
        # The ledger has a version before an engine does, so it has that of every row by now.
        if self.more is not None and version > max(self.steps, default=0):
            self.hear(self.more())
        with self._lock:
            if version in self.steps:
                return self._mirrored(version)
            if not self.steps:
                return version - 1
            older = [noted for noted in self.steps if noted < version]
            if older:
                return self._mirrored(max(older))
            first = min(self.steps)
            return self.steps[first] - (first - version)

    def _mirrored(self, version: int) -> int:
        step = self.steps[version]
        cut = self._cut.get(version, step)
        return step if step <= cut else 2 * cut - step

    def staleness(self, version: int | None, at_step: int) -> int:
        """Optimizer steps between the weights of `version` and a step that starts at `at_step`.

        Never negative: a row can be sampled before the step before it has been counted. None
        (nobody knows the version) counts as the run's first weights, and never as fresh.
        """
        if version is None:
            return max(at_step, 1)
        return max(at_step - self.step_of(version), 0)
