"""The memory: pointers to past batches with their priorities, and seeded draws from them.

A pure core. What it holds is a function of which batches came, which priorities they were given
last, and how often each was drawn; it does not matter in which order the three came together. So
one that is rebuilt from the log equals the one that died, to the byte.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from odradek.streams.sampler.random_stream import RandomStream
from odradek.streams.sampler.rules import LEAST, MOST, DrawRules
from odradek.streams.sampler.tree import Numbers, Places, SumTree

EPOCH: Final = 64
"""Half-lives after which priorities are written down anew."""
TRIES: Final = 3
"""How often a draw is repeated for batches that it has drawn already, before they are set aside."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Batches that were drawn, in the order of the draw; all arrays have the shape (m,).

    Attributes:
        offsets: Of the batches, int64.
        uses: How often each was drawn before, int64.
        weights: Importance weights, the largest of them 1, float64.
    """

    offsets: Places
    uses: Places
    weights: Numbers


class ReplayMemory:
    """The newest `capacity` batches that were remembered.

    Ages are counted in batches: a batch is as old as the number of batches that came after it.
    """

    def __init__(self, rules: DrawRules) -> None:
        self.rules = rules
        self.count = 0
        """Batches that were ever remembered."""
        self._offsets = np.full(rules.capacity, -1, dtype=np.int64)
        """In a ring: the n-th batch is at n % capacity."""
        self._logs = np.zeros(rules.capacity)
        """alpha * log2 of each priority."""
        self._uses = np.zeros(rules.capacity, dtype=np.int64)
        self._epoch = 0
        self._tree = SumTree(rules.capacity)
        self._stream = RandomStream()

    def __len__(self) -> int:
        """How many batches are remembered, drawable or not."""
        return min(self.count, self.rules.capacity)

    def add(self, offsets: Places, priorities: Numbers) -> None:
        """Remember further batches, in their order; the oldest ones are forgotten for them.

        Args:
            offsets: Shape (m,), rising, and above all that came before.
            priorities: Shape (m,), at least 0.
        """
        first, self.count = self.count, self.count + len(offsets)
        kept = np.arange(max(first, self.count - self.rules.capacity), self.count)
        places = kept % self.rules.capacity
        self._offsets[places] = offsets[kept - first]
        self._logs[places] = self._log(priorities[kept - first])
        self._uses[places] = 0
        self._refresh(places)

    def rate(self, offsets: Places, priorities: Numbers) -> None:
        """Give batches new priorities; those that are forgotten, or never were here, are passed.

        Where one is named twice, its last priority counts.
        """
        places, there = self._places(offsets)
        self._logs[places] = self._log(priorities[there])
        self._refresh(places)

    def use(self, offsets: Places, times: Places | int = 1) -> None:
        """Count that batches were drawn, each named at most once, so many times."""
        places, there = self._places(offsets)
        self._uses[places] += times if isinstance(times, int) else times[there]
        if self.rules.max_uses:
            self._refresh(places)

    def draw(self, size: int, seed: tuple[int, ...]) -> Drawn:
        """Draw different batches; nothing changes but what `use` is told then.

        One after the other, each with the probability of its priority among those that are left.
        There are fewer than `size` where fewer can be drawn.

        Args:
            size: How many.
            seed: Numbers that decide the draw, together with what is remembered.
        """
        if self.rules.order == "recency":
            places = self._newest(size)
            return Drawn(self._offsets[places], self._uses[places], np.ones(len(places)))
        self._stream.seed(*seed)
        places = self._different(size, self._stream)
        logs = np.log2(self._tree.leaves.take(places))
        if len(logs):
            logs -= np.minimum.reduce(logs)
        logs *= -self.rules.beta
        weights = np.exp2(logs, out=logs)
        return Drawn(self._offsets.take(places), self._uses.take(places), weights)

    def state(self) -> bytes:
        """All that decides later draws, for comparisons."""
        parts = (self._offsets, self._logs, self._uses, self._tree.leaves)
        return b"".join(part.tobytes() for part in parts) + str(self.count).encode()

    # -- draws

    def _different(self, size: int, stream: RandomStream) -> Places:
        """Places that differ, each drawn from the tree among those that are left.

        To draw again where a batch was drawn before is to draw among those that are left: so some
        more are drawn than wanted, and repeats are passed over. Where a few batches hold nearly
        everything that would not end soon. Then those are set to 0 until the draw is over.
        """
        tree, chosen = self._tree, dict[int, None]()
        for attempt in range(TRIES):
            missing = size - len(chosen)
            if tree.total <= 0 or missing <= 0:
                break
            found = tree.find(stream.next(missing + missing // 8) * tree.total)
            listed = found.tolist()
            if not attempt and len({*listed[:size]}) == size:
                return found[:size]
            chosen.update(dict.fromkeys(listed))
        places = np.fromiter(chosen, dtype=np.int64, count=len(chosen))[:size]
        return places if len(places) == size else self._set_aside(places, size, stream)

    def _set_aside(self, places: Places, size: int, stream: RandomStream) -> Places:
        """Go on where these were drawn, and may not be again."""
        tree, values = self._tree, self._tree.leaves[places]
        while len(places) < size:
            tree.set(places, np.zeros(len(places)))
            if tree.total <= 0:
                break
            found = tree.find(stream.next(size - len(places)) * tree.total)
            fresh = np.fromiter(dict.fromkeys(found.tolist()), dtype=np.int64)
            values = np.concatenate([values, tree.leaves[fresh]])
            places = np.concatenate([places, fresh])
        tree.set(places, values)
        return places

    def _newest(self, size: int) -> Places:
        kept = np.arange(self.count - 1, self.count - len(self) - 1, -1) % self.rules.capacity
        return kept[self._tree.leaves[kept] > 0][:size]

    # -- priorities

    def _log(self, priorities: Numbers) -> Numbers:
        """What a priority counts before its age does: all alike where it does not matter."""
        if self.rules.order in {"uniform", "recency"}:
            return np.zeros(len(priorities))
        logs: Numbers = self.rules.alpha * np.log2(np.minimum(priorities, MOST) + LEAST)
        return logs

    def _refresh(self, places: Places) -> None:
        """Write the leaves of some places.

        A priority that halves with every h newer batches would change all leaves with each batch.
        Draws only see ratios, though, so the newer leaf is written higher instead: the n-th batch's
        leaf is p^alpha * 2^(n/h). Before that leaves float64, all are written anew against a later
        origin, from their logarithms: which origin follows from `count` alone.
        """
        if (epoch := self._epoch_now()) != self._epoch:
            self._epoch = epoch
            self._tree.fill(self._leaves(np.arange(self.rules.capacity)))
        elif len(places):
            self._tree.set(places, self._leaves(places))

    def _epoch_now(self) -> int:
        half_life = self.rules.half_life
        return int(self.count / (half_life * EPOCH)) if half_life else 0

    def _leaves(self, places: Places) -> Numbers:
        """What the leaves of some places are."""
        logs, half_life = self._logs[places], self.rules.half_life
        if half_life:
            newest = self.count - 1
            ordinals = newest - (newest - places) % self.rules.capacity
            logs = logs + (ordinals / half_life - self._epoch * EPOCH)
        drawable = self._offsets[places] >= 0
        if self.rules.max_uses:
            drawable &= self._uses[places] < self.rules.max_uses
        leaves: Numbers = np.where(drawable, np.exp2(logs), 0.0)
        return leaves

    def _places(self, offsets: Places) -> tuple[Places, npt.NDArray[np.bool_]]:
        """Where batches are, and which of them are still here.

        Offsets rise from the oldest, at the seam, to the ring's end, and on from its beginning.
        """
        size = len(self)
        seam = self.count % self.rules.capacity if self.count > size else 0
        at = self._offsets[seam:size].searchsorted(offsets)
        if seam:
            at += seam
            at = np.where(at < size, at, self._offsets[:seam].searchsorted(offsets))
        at = np.minimum(at, max(size - 1, 0))
        there = self._offsets[at] == offsets
        return at[there], there
