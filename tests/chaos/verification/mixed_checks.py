"""The mixed topic against the batches: each once as a fresh one, and what was drawn again numbered."""

from collections import Counter, defaultdict

from tests.chaos.verification.log import Log
from tests.chaos.verification.verdict import Verdict


def mixed(log: Log, verdict: Verdict) -> None:
    """Nothing where no sampler ran."""
    if not log.mixed:
        return
    closed = {record.offset: batch for record, batch in log.batches}
    fresh = [batch.mixed.batch for _, batch in log.mixed if batch.mixed and not batch.origin]
    for offset, n in Counter(fresh).items():
        if n > 1:
            verdict.add("mixed_twice", f"batch {offset} was mixed {n} times as a fresh one")
    for offset in closed.keys() - {*fresh}:
        verdict.add("mixed_lost", f"batch {offset} was never mixed")
    if fresh != sorted(fresh):
        verdict.add("mixed", f"fresh batches were mixed in the order {fresh}")
    uses: Counter[int] = Counter()
    drawn: defaultdict[int, list[int]] = defaultdict(list)
    for record, batch in log.mixed:
        mark = batch.mixed
        if mark is None or mark.batch not in closed:
            verdict.add("mixed", f"record {record.offset} of the mixed topic is no batch of ours")
            continue
        wanted = [pointer.digest for pointer in closed[mark.batch].episodes]
        if wanted != [pointer.digest for pointer in batch.episodes]:
            verdict.add("mixed", f"record {record.offset} has other episodes than {mark.batch}")
        if batch.origin:
            uses[mark.batch] += 1
            drawn[mark.batches].append(mark.batch)
        told = {pointer.uses for pointer in batch.episodes}
        if batch.origin and told != {uses[mark.batch]}:
            verdict.add("mixed", f"use {uses[mark.batch]} of batch {mark.batch} is told as {told}")
    for before, offsets in drawn.items():
        if len({*offsets}) < len(offsets) or max(offsets) >= before:
            verdict.add("mixed", f"before batch {before} these were drawn at once: {offsets}")
    verdict.counts["mixed"] = len(fresh)
    verdict.counts["drawn"] = uses.total()
