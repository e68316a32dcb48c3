"""Groups, batches and the trainer's ledger against what was asked for."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from odradek.schemas import events
from tests.chaos.verification import oracle
from tests.chaos.verification.log import Log
from tests.chaos.verification.verdict import Given, Verdict

PASSED = frozenset({"repeated", "fresh_share"})
"""Why rows that were drawn again are left out of a step."""
Found = dict[str, tuple[Any, events.Episode]]
"""Episodes by id, each with its record."""


def balance(log: Log, verdict: Verdict, given: Given, episodes: Found) -> None:
    """Tasks against batches, batches against the ledger."""
    _batches(log, verdict, given, episodes)
    if given.ended:
        _training(log, verdict, given, episodes)


def _batches(log: Log, verdict: Verdict, given: Given, episodes: Found) -> None:
    """Every task one GroupOpened and one Batch; every sample an episode or an exclusion."""
    expected = Counter(
        event.task_id for _, event in log.episodes if isinstance(event, events.GroupOpened)
    )
    batches: dict[str, events.Batch] = {}
    for _, batch in log.batches:
        if batch.task_id in batches:
            verdict.add("batch_twice", f"task {batch.task_id} has two batches")
        batches[batch.task_id] = batch
    attempts: defaultdict[tuple[str, int], list[events.Episode]] = defaultdict(list)
    for _, episode in episodes.values():
        attempts[episode.task_id, episode.sample].append(episode)
    for task, size in given.tasks.items():
        if expected[task] != 1:
            verdict.add(
                "expected_twice" if expected[task] else "expected_lost",
                f"task {task}: {expected[task]} times Expected",
            )
        if task not in batches:
            verdict.add("batch_lost", f"task {task} has no batch")
            continue
        batch = batches[task]
        names = [one.sample for one in (*batch.episodes, *batch.exclusions)]
        if sorted(names) != list(range(size)):
            verdict.add("samples", f"task {task}: its batch names samples {sorted(names)}")
        for pointer in batch.episodes:
            _pointer(pointer, task, verdict, episodes)
        for one in batch.exclusions:
            verdict.exclusions[one.reason] += 1
            if not _explained(one, batch, given, attempts[task, one.sample]):
                verdict.add("exclusion_unexplained", f"{task}/{one.sample}: {one.reason}")
        if batch.zero_variance != (len(batch.episodes) > 1 and _flat(batch)):
            verdict.add("variance", f"the batch of {task} says zero_variance={batch.zero_variance}")
    for task in batches.keys() - given.tasks.keys():
        verdict.add("task_unasked", f"nobody asked for task {task}")
    verdict.counts["tasks"] = len(given.tasks)
    verdict.counts["samples"] = sum(given.tasks.values())
    verdict.counts["batches"] = len(log.batches)
    verdict.counts["batched"] = sum(len(batch.episodes) for batch in batches.values())


def _explained(
    one: events.Exclusion, batch: events.Batch, given: Given, tried: list[events.Episode]
) -> bool:
    """Whether a sample may be left out: by its script, by as many lost attempts, by the others."""
    if one.reason == "too_few":
        others = sum(other.reason != "too_few" for other in batch.exclusions)
        return not batch.episodes and others > batch.group_size - min(2, batch.group_size)
    last = max(tried, key=lambda episode: episode.attempt, default=None)
    if last is None or last.outcome != one.reason or last.episode_id != one.episode_id:
        return False
    if one.reason == "unrewarded":
        play = oracle.play_of(given.seed, last.task_id, last.sample, last.attempt)
        return play.ending == "unrewarded"
    return (
        one.reason == "host_lost"
        and sorted(episode.attempt for episode in tried) == [*range(1, given.max_attempts + 1)]
        and not any(episode.outcome.counts for episode in tried)
    )


def _flat(batch: events.Batch) -> bool:
    """Whether all samples are equally good, so that nothing can be learned from them."""
    return len({pointer.reward for pointer in batch.episodes}) <= 1


def _pointer(pointer: events.Pointer, task: str, verdict: Verdict, episodes: Found) -> None:
    if pointer.episode_id not in episodes:
        verdict.add("pointer_lost", f"episode {pointer.episode_id} of the batch of {task}")
        return
    record, episode = episodes[pointer.episode_id]
    if (pointer.partition, pointer.offset, pointer.digest, pointer.sample, task) != (
        record.partition,
        record.offset,
        sha256(record.value).hexdigest(),
        episode.sample,
        episode.task_id,
    ):
        verdict.add("pointer", f"the pointer to {pointer.episode_id} leads elsewhere")
    if pointer.reward != episode.reward:
        verdict.add("reward", f"the batch of {task} gives {pointer.episode_id} another reward")


def line(steps: Iterable[events.Step]) -> list[events.Step]:
    """The optimizer steps along the line of checkpoints that led to the last policy.

    A start of the trainer goes on from some step: what was told of later ones was cut off.
    """
    kept: dict[int, events.Step] = {}
    incarnation = 0
    for entry in steps:
        fresh = entry.incarnation != incarnation
        incarnation = entry.incarnation
        if fresh:
            # The first entry of a start names the step that it goes on from, and may tell that
            # step itself, where a crash came between its checkpoint and its entry.
            first = entry.step if entry.optimized or entry.skipped else entry.step + 1
            for step in [one for one in kept if one >= first]:
                del kept[step]
        if entry.optimized or entry.skipped:
            kept[entry.step] = entry
    return [kept[step] for step in sorted(kept)]


def _training(log: Log, verdict: Verdict, given: Given, episodes: Found) -> None:
    """Each batch used exactly once along the line of checkpoints, up to where it has come."""
    steps = [step for _, step in log.steps]
    kept = line(steps)
    verdict.counts["steps"] = len(kept)
    verdict.counts["trainer_starts"] = max((step.incarnation for step in steps), default=0)
    numbers = [step.step for step in kept]
    if numbers != list(range(1, len(numbers) + 1)):
        verdict.add("step_lost", f"the line of checkpoints has steps {numbers}")
    used: Counter[int] = Counter()
    for step in kept:
        taken = Counter({one.offset: one.rows for one in step.used})
        if step.skipped:
            taken.update(one.offset for one in step.refused if one.reason == "non_finite")
        if taken.total() != given.rows_per_step:
            verdict.add("step_size", f"step {step.step} used {taken.total()} rows")
        used += taken
    refused = Counter(
        {
            (one.offset, one.episode_id, one.row)
            for step in steps
            for one in step.refused
            if one.reason in PASSED
        }
    )
    passed = Counter(offset for offset, _, _ in refused)
    reached = max((step.position for step in kept), default=0)
    waiting = 0
    for record, batch in log.mixed or log.batches:
        # Nothing can be learned from equal rewards; whether they are equal is not the ledger's say.
        rows = 0 if _flat(batch) else _rows(batch, episodes) - passed[record.offset]
        told = f"batch {record.offset}: {used[record.offset]} rows used of {rows}"
        if used[record.offset] > rows:
            verdict.add("rows_twice", told)
        elif record.offset < reached and used[record.offset] < rows:
            verdict.add("rows_unused", told)
        else:
            waiting += rows - used[record.offset]
    if waiting >= given.rows_per_step:
        verdict.add("rows_waiting", f"{waiting} rows wait, a step takes {given.rows_per_step}")
    verdict.counts["rows_used"] = used.total()
    verdict.counts["rows_waiting"] = waiting
    weights: dict[int, str] = {}
    for step in steps:
        if step.weights and weights.setdefault(step.version, step.weights) != step.weights:
            verdict.add("version_twice", f"version {step.version} stands for two sets of weights")


def _rows(batch: events.Batch, episodes: Found) -> int:
    return sum(
        len(episodes[one.episode_id][1].sequences)
        for one in batch.episodes
        if one.episode_id in episodes
    )


def positions(log: Log, verdict: Verdict, episodes: Found) -> None:
    """Groups have committed every partition, hold none at a record, and stand above nothing open.

    What ended stands below its group's low-water mark, and only what ended: so a mark is at a record
    only while something is open there, and above the beginning of something only once it has ended.
    """
    closed = {batch.task_id for _, batch in log.batches}
    opened = [
        (record, event.episode_id, event.episode_id in episodes)
        for record, event in log.turns
        if isinstance(event, events.EpisodeOpened)
    ]
    expected = [
        (record, event.task_id, event.task_id in closed)
        for record, event in log.episodes
        if isinstance(event, events.GroupOpened)
    ]
    for group, name, records, begun in (
        ("assemble", "rl.turns", log.turns, opened),
        ("group", "rl.episodes", log.episodes, expected),
    ):
        marks = log.marks.get(group, {})
        ends: dict[int, int] = {}
        for record, _ in records:
            ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
        for partition, end in sorted(ends.items()):
            mark = marks.get(partition)
            if mark is None:
                verdict.add("uncommitted", f"{group} has committed nothing of {name}[{partition}]")
            elif mark < end:
                verdict.add("low_water", f"{group} holds {name}[{partition}] at {mark} of {end}")
        for record, what, ended in begun:
            if not ended and marks.get(record.partition, 0) > record.offset:
                verdict.add(
                    "committed_beyond",
                    f"{group} stands above {name}[{record.partition}]@{record.offset}, where {what} "
                    "begins, which never ended",
                )
