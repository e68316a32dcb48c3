"""The mixer: fresh batches as they come and, after every few of them, old ones that are drawn.

A pure core over two topics, `rl.batches.v1` and `rl.steps.v1`. What it remembers is a function of
how far it has read both, and of what it has drawn; so a mixer that reads both again, and the mixed
topic for what was drawn, goes on as the one that died. Every batch that it writes says how far both
were read (`Mixed`): whoever reads them as far, with the same seed, draws the same.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from math import inf, sqrt
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from odradek.schemas import codec
from odradek.schemas.events import Batch, Mixed, Step
from odradek.schemas.topics import BATCHES, MIXED
from odradek.streams.sampler.memory import ReplayMemory
from odradek.streams.sampler.rules import MixRules

ORIGIN: Final = f"{BATCHES.name}/0/"
"""How the origin of a batch that was drawn begins; its offset follows."""


class RewardHead(Struct, frozen=True):
    """The part of a pointer that a priority is made of."""

    reward: float


class BatchHead(Struct, frozen=True, tag="batch"):
    """The part of a batch that says whether and how it is drawn.

    To read only this takes a third of the time, so a memory of many batches is back sooner. It is
    for records that a sampler has read whole before.
    """

    purpose: str = "train"
    zero_variance: bool = False
    origin: str = ""
    episodes: tuple[RewardHead, ...] = ()


class MixedHead(Struct, frozen=True, tag="batch"):
    """The part of a batch on the mixed topic that says what it is."""

    origin: str = ""
    mixed: Mixed | None = None


class Mixer:
    """What was read of both topics, and what follows from it.

    Attributes:
        batches: Offset behind the last batch that was read.
        steps: Offset behind the last step that was read.
    """

    def __init__(self, rules: MixRules) -> None:
        self.rules = rules
        self.batches = 0
        self.steps = 0
        self.memory = ReplayMemory(rules.draws)
        self._window: dict[int, float] = {}
        """Offsets and priorities of the fresh batches since the last draw: it draws none of them,
        for a step is not to have a batch twice."""
        self._early: dict[int, float] = {}
        """Priorities of batches that were not read yet: what is remembered must not depend on which
        of the two topics was read first."""
        self._kept: dict[int, Batch | bytes] = {}
        """By offset, what may be drawn, and the window: whole, or its record's value."""
        self._order: deque[int] = deque()
        self._found: dict[int, float] = {}
        self._uses: Counter[int] = Counter()

    def step(self, offset: int, step: Step | None) -> None:
        """Read the next step, or None where the record holds none."""
        self.rate(self._read_step(offset, step))

    def _read_step(self, offset: int, step: Step | None) -> dict[int, float]:
        """The priorities in it: of the run that leads, whose weights the agents sample from."""
        self.steps = offset + 1
        if self.rules.draws.order != "proportional" or step is None:
            return {}
        if step.topic != MIXED.name or step.sampled_by:
            return {}
        return {use.source: use.advantage for use in step.used if use.source is not None}

    def rate(self, priorities: dict[int, float]) -> None:
        """Give batches the priorities that steps found, by offset."""
        if not priorities:
            return
        for offset, priority in priorities.items():
            if offset in self._window:
                self._window[offset] = priority
            elif offset >= self.batches:
                self._early[offset] = priority
        offsets = np.fromiter(priorities, dtype=np.int64, count=len(priorities))
        self.memory.rate(offsets, np.array([*priorities.values()], dtype=np.float64))

    def batch(self, offset: int, batch: Batch) -> list[Batch]:
        """Read the next batch; return what is written for it: itself, and what is drawn then."""
        self._read(offset, batch)
        written = [msgspec.structs.replace(batch, mixed=self._mark(offset))]
        if len(self._window) == self.rules.fresh:
            written += self._drawn()
            window, self._window = self._window, {}
            self._close(window)
            self._forget()
        return written

    def skip(self, offset: int) -> list[Batch]:
        """Pass a record that holds no batch; nothing is written for it."""
        self.batches = offset + 1
        return []

    # -- what a mixer had read and written that died: all of it, in this order, and then `settle`

    def remember(self, offset: int, batch: Batch | BatchHead, value: bytes = b"") -> None:
        """Take the next batch that it had read.

        Args:
            offset: Of its record.
            batch: All of it, or its head.
            value: Of its record, where only the head is given.
        """
        self._read(offset, batch, value)
        while len(self._order) > self.rules.draws.capacity + self.rules.fresh:
            del self._kept[self._order.popleft()]

    def recall(self, offset: int, step: Step | None) -> None:
        """Take the next step that it had read."""
        self._found |= self._read_step(offset, step)

    def drew(self, batch: Batch | MixedHead) -> None:
        """Take the next batch that it had written."""
        if (source := drawn_from(batch)) is not None:
            self._uses[source] += 1

    def settle(self, batches: int, steps: int) -> None:
        """That was all, up to these offsets: be where that mixer was."""
        every = [*self._window.items()]
        closed = len(every) - len(every) % self.rules.fresh
        self._close(dict(every[:closed]))
        self._window = dict(every[closed:])
        self._forget()
        self.batches, self.steps = batches, steps
        self.rate(self._found)
        self.memory.use(
            np.fromiter(self._uses, dtype=np.int64, count=len(self._uses)),
            np.fromiter(self._uses.values(), dtype=np.int64, count=len(self._uses)),
        )
        self._found.clear()
        self._uses.clear()

    # -- batches

    def _mark(self, offset: int) -> Mixed:
        """How far both topics are read, for what is written of a batch."""
        return Mixed(batch=offset, batches=self.batches, steps=self.steps)

    def _read(self, offset: int, batch: Batch | BatchHead, value: bytes = b"") -> None:
        self.batches = offset + 1
        early = self._early.pop(offset, None)
        if teaches(batch):
            self._window[offset] = self._priority(batch) if early is None else early
            self._kept[offset] = batch if isinstance(batch, Batch) else value
            self._order.append(offset)

    def _drawn(self) -> list[Batch]:
        """Old batches, each with how often its episodes were used and what they weigh."""
        rules = self.rules
        drawn = self.memory.draw(rules.replayed, (rules.seed, self.batches, self.steps))
        self.memory.use(drawn.offsets)
        columns = (drawn.offsets.tolist(), drawn.uses.tolist(), drawn.weights.tolist())
        return [self._again(*each) for each in zip(*columns, strict=True)]

    def _again(self, offset: int, uses: int, weight: float) -> Batch:
        kept = self._kept[offset]
        batch: Batch = kept if isinstance(kept, Batch) else codec.decode(kept, Batch)
        return msgspec.structs.replace(
            batch,
            episodes=tuple(
                msgspec.structs.replace(pointer, uses=uses + 1, weight=weight)
                for pointer in batch.episodes
            ),
            origin=f"{ORIGIN}{offset}",
            mixed=self._mark(offset),
        )

    def _close(self, window: dict[int, float]) -> None:
        """The batches of a window may be drawn from now on."""
        self.memory.add(
            np.fromiter(window, dtype=np.int64, count=len(window)),
            np.array([*window.values()], dtype=np.float64),
        )

    def _forget(self) -> None:
        """Drop what the memory has forgotten."""
        while len(self._order) > self.rules.draws.capacity + len(self._window):
            del self._kept[self._order.popleft()]

    def _priority(self, batch: Batch | BatchHead) -> float:
        """What a batch counts before the trainer has said anything of it.

        `reward`: the mean reward of its samples, and 0 below 0. Otherwise the mean of |advantage|,
        as the trainer computes advantages by default.
        """
        rewards = [pointer.reward for pointer in batch.episodes]
        mean = sum(rewards) / len(rewards)
        if self.rules.draws.order == "reward":
            return max(mean, 0.0)
        apart = [abs(reward - mean) for reward in rewards]
        squares = sum([each * each for each in apart])
        spread = sqrt(squares * len(apart))
        return sum(apart) / spread if 0 < spread < inf else 0.0


def teaches(batch: Batch | BatchHead) -> bool:
    """Whether a batch is for training, and its samples differ: nothing else is drawn again."""
    return (
        batch.purpose == "train"
        and bool(batch.episodes)
        and not batch.zero_variance
        and not batch.origin
    )


def drawn_from(batch: Batch | MixedHead) -> int | None:
    """The offset on `rl.batches.v1` of what a batch repeats; None of a fresh one."""
    replayed = batch.mixed is not None and batch.origin.startswith(ORIGIN)
    return batch.mixed.batch if batch.mixed is not None and replayed else None


def mixed_again(
    rules: MixRules,
    marks: Iterable[Mixed],
    batches: Mapping[int, Batch | None],
    steps: Mapping[int, Step | None],
) -> list[Batch]:
    """What a mixer writes that reads both topics as far, each time, as marks say.

    Args:
        rules: Of the mixer.
        marks: Of the mixed topic, in order.
        batches: By offset, what is on `rl.batches.v1`, in order; None for what is no batch.
        steps: The same of `rl.steps.v1`.
    """
    mixer, again = Mixer(rules), list[Batch]()
    further, heard = iter(batches.items()), iter(steps.items())
    for mark in marks:
        while mixer.steps < mark.steps:
            mixer.step(*next(heard))
        while mixer.batches < mark.batches:
            offset, batch = next(further)
            again += mixer.batch(offset, batch) if batch is not None else mixer.skip(offset)
    return again
