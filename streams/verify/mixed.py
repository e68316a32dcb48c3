"""The mixed topic: each batch once as a fresh one, and old ones that say what they repeat."""

from collections import Counter

from odradek.schemas.events import Batch
from odradek.schemas.topics import BATCHES
from odradek.streams.verify.findings import Findings


class MixedBatches:
    """What the sampler wrote, against `rl.batches.v1`. A use of an old batch is no duplicate."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._closed: dict[int, str] = {}
        """Digests on `rl.batches.v1`, by offset."""
        self._written: list[tuple[int, Batch]] = []

    def closed(self, offset: int, batch: Batch) -> None:
        """Take a batch of `rl.batches.v1`."""
        self._closed[offset] = batch.digest()

    def written(self, offset: int, batch: Batch) -> None:
        """Take a batch of the mixed topic, in its order."""
        self._written.append((offset, batch))

    def check(self) -> None:
        """Find what the sampler lost, wrote twice, or made up."""
        fresh: Counter[int] = Counter()
        uses: Counter[int] = Counter()
        before, first = (0, 0), None
        for offset, batch in self._written:
            name = f"batch {offset} of the mixed topic"
            mark = batch.mixed
            if mark is None:
                self._findings.problems.append(f"{name} does not say what the sampler had read")
                continue
            if self._closed.get(mark.batch, batch.digest()) != batch.digest():
                self._findings.problems.append(
                    f"{name} has other episodes than batch {mark.batch}, which it is or repeats"
                )
            if (mark.batches, mark.steps) < before or mark.steps < before[1]:
                self._findings.problems.append(f"{name}: the sampler had read less than before")
            before = mark.batches, mark.steps
            if not batch.origin.startswith(f"{BATCHES.name}/0/"):
                fresh[mark.batch] += 1
                first = mark.batch if first is None else first
                continue
            if first is not None and mark.batch > first and not fresh[mark.batch]:
                self._findings.problems.append(f"{name} repeats one that was not mixed yet")
            uses[mark.batch] += 1
            self._check_uses(name, batch, uses[mark.batch])
        self._check_fresh(fresh)

    def _check_uses(self, name: str, batch: Batch, times: int) -> None:
        numbers = {pointer.uses for pointer in batch.episodes}
        # Where retention has taken earlier uses, the numbers are higher than what is there.
        if any(uses < times for uses in numbers) or len(numbers) > 1:
            self._findings.problems.append(
                f"{name} repeats another batch for the {times}. time, and says {sorted(numbers)}"
            )

    def _check_fresh(self, fresh: Counter[int]) -> None:
        self._findings.duplicated.extend(
            f"batch {offset} on the mixed topic" for offset, n in fresh.items() if n > 1
        )
        if not fresh:
            return
        first, last = min(fresh), max(fresh)
        self._findings.lost.extend(
            f"batch {offset} on the mixed topic"
            for offset in self._closed
            if first < offset < last and not fresh[offset]
        )
