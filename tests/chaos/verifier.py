"""What the log holds against what the seed asks for: topics only, as committed, and the ledger.

Shares no code with the pipeline beyond the schemas: it reads with a plain consumer and recomputes
each episode by the oracle. `lost` and `duplicated` name what is missing and what counts twice;
`wrong` is whatever else is not as it must be.
"""

import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from math import isclose
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from chaos import oracle
from odradek.schemas import events
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, STEPS, TURNS

LETTERS = frozenset({"closed_or_unknown", "after_end", "late_reward"})
"""Dead letters that a kill may cause: what a lost attempt still had to say."""
EXCLUSIONS = frozenset({"host_lost", "too_few"})
"""A sample may be left out when every attempt at it lost its host, or when its group is too small
then."""

TurnsEvent = msgspec.json.Decoder(events.TurnsEvent)
EpisodesEvent = msgspec.json.Decoder(events.EpisodesEvent)
BatchEvent = msgspec.json.Decoder(events.Batch)
StepEvent = msgspec.json.Decoder(events.Step)


@dataclass
class Log:
    """All committed records of the topics that count."""

    turns: list[tuple[Any, Any]] = field(default_factory=list)
    """(record, event)"""
    episodes: list[tuple[Any, Any]] = field(default_factory=list)
    batches: list[tuple[Any, events.Batch]] = field(default_factory=list)
    steps: list[tuple[Any, events.Step]] = field(default_factory=list)
    letters: list[Any] = field(default_factory=list)


async def read(servers: str, prefix: str) -> Log:
    """Read every partition of the topics to its end of now."""
    log = Log()
    into: dict[str, tuple[list[Any], Any]] = {
        prefix + TURNS.name: (log.turns, TurnsEvent),
        prefix + EPISODES.name: (log.episodes, EpisodesEvent),
        prefix + BATCHES.name: (log.batches, BatchEvent),
        prefix + STEPS.name: (log.steps, StepEvent),
        prefix + DLQ.name: (log.letters, None),
    }
    async for record in records(servers, into):
        found, decoder = into[record.topic]
        found.append(record if decoder is None else (record, decoder.decode(record.value)))
    return log


async def records(servers: str, names: Iterable[str]) -> Any:
    """Committed records of topics up to their ends of now, in the order of each partition."""
    reader = AIOKafkaConsumer(
        bootstrap_servers=servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        metadata = await reader._client.fetch_all_metadata()
        wanted = [
            TopicPartition(name, number)
            for name in names
            for number in sorted(metadata.partitions_for_topic(name) or ())
        ]
        reader.assign(wanted)
        ends = {on: end for on, end in (await reader.end_offsets(wanted)).items() if end}
        while ends:
            for messages in (await reader.getmany(timeout_ms=200)).values():
                for message in messages:
                    yield message
            for on in list(ends):
                if await reader.position(on) >= ends[on]:
                    del ends[on]
    finally:
        await reader.stop()


async def positions(servers: str, prefix: str, log: Log) -> list[str]:
    """Groups whose committed low-water mark stands before a record: something is open for ever."""
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    found = []
    try:
        for group, topic, records in (
            ("assemble", TURNS.name, log.turns),
            ("group", EPISODES.name, log.episodes),
        ):
            ends: dict[int, int] = {}
            for record, _ in records:
                ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
            marks = await client.list_consumer_group_offsets(f"{prefix}odradek.{group}")
            for on, mark in marks.items():
                if on.topic == prefix + topic and mark.offset < ends.get(on.partition, 0):
                    found.append(f"{group} holds {topic}[{on.partition}] at {mark.offset}")
    finally:
        await client.close()
    return found


class Verdict:
    """What was found."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.duplicated: list[str] = []
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.exclusions: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing twice, nothing wrong."""
        return not (self.lost or self.duplicated or self.wrong)


def judge(log: Log, seen: Path, seed: int, tasks: dict[str, int], *, trained: bool) -> Verdict:
    """Hold a log against the tasks (id: group size) that were published.

    Args:
        log: What stands in the topics.
        seen: The agents' journal.
        seed: Of the run.
        tasks: What was asked for.
        trained: Whether a trainer ran, and passed every batch.
    """
    verdict = Verdict()
    episodes = _episodes(log, verdict, seed)
    _turns(log, verdict, episodes)
    _journal(log, verdict, seen)
    _letters(log, verdict)
    _batches(log, verdict, tasks, episodes)
    if trained:
        _training(log, verdict, episodes)
    return verdict


def _episodes(log: Log, verdict: Verdict, seed: int) -> dict[str, tuple[Any, events.Episode]]:
    """Every Opened in exactly one Episode, each with the tokens and the reward of its script."""
    opened = {event.episode_id: event for _, event in log.turns if isinstance(event, events.Opened)}
    sampled = {
        event.turn_id: _numbers(event.completion.ids)
        for _, event in log.turns
        if isinstance(event, events.Turn)
    }
    found: dict[str, tuple[Any, events.Episode]] = {}
    for record, event in log.episodes:
        if not isinstance(event, events.Episode):
            continue
        if event.episode_id in found:
            verdict.duplicated.append(f"episode {event.episode_id} stands twice")
        found[event.episode_id] = (record, event)
        if event.episode_id not in opened:
            verdict.wrong.append(f"episode {event.episode_id} was never opened")
        unseen = Counter(
            sampled.get(turn) for turn, why in event.left_out.items() if why == "superseded"
        )
        _episode(event, verdict, seed, unseen)
    verdict.lost += [f"episode {name}" for name in opened.keys() - found.keys()]
    verdict.counts["opened"] = len(opened)
    verdict.counts["episodes"] = len(found)
    verdict.counts["retries"] = sum(event.retry for _, event in found.values())
    return found


def _episode(
    episode: events.Episode, verdict: Verdict, seed: int, superseded: Counter[Any]
) -> None:
    where = f"episode {episode.episode_id} ({episode.task_id}/{episode.sample})"
    play = oracle.play_of(seed, episode.task_id, episode.sample, episode.attempt)
    wanted = oracle.expected(play)
    made: Counter[str] = Counter()
    by_tokens = {
        (tuple(ids), tuple(oracle.completion(key))): key for key, (ids, _) in wanted.items()
    }
    for sequence in episode.sequences:
        ids = _numbers(sequence.ids)
        logprobs = struct.unpack(f"<{len(sequence.logprobs) // 4}f", sequence.logprobs)
        for span in sequence.spans:
            n = span.end - span.start
            told, logprobs = logprobs[:n], logprobs[n:]
            key = by_tokens.get((ids[: span.start], ids[span.start : span.end]))
            if key is None:
                verdict.wrong.append(f"{where}: tokens {span.start}:{span.end} are no call of its")
            elif list(told) != oracle.logprobs(key):
                verdict.wrong.append(f"{where}: {key} has other log probabilities")
            else:
                made[key] += 1
        if logprobs:
            verdict.wrong.append(f"{where}: {len(logprobs)} log probabilities too many")
    counts = episode.outcome.counts
    for key, (_, times) in wanted.items():
        if made[key] > times:
            verdict.duplicated.append(f"{where}: {key} is trained {made[key]} times, not {times}")
        elif counts and made[key] < times:
            # Of two equal calls at once, the one that was answered before the proxy died cannot
            # be told from one that nobody saw: it is kept, and not trained.
            if times > 1 and made[key] + superseded[tuple(oracle.completion(key))] >= times:
                verdict.counts["equal_calls_left_out"] += times - made[key]
                continue
            verdict.lost.append(f"{where}: {key} is trained {made[key]} times, not {times}")
    if counts:
        if str(episode.outcome) != play.ending:
            verdict.wrong.append(f"{where} {episode.outcome}, its script says {play.ending}")
        elif episode.reward is None or not isclose(episode.reward, play.reward or 0.0):
            verdict.wrong.append(f"{where}: reward {episode.reward}, not {play.reward}")


def _turns(log: Log, verdict: Verdict, episodes: dict[str, tuple[Any, events.Episode]]) -> None:
    """Every acked turn in exactly one episode or dead letter."""
    homes: Counter[str] = Counter()
    for _, episode in episodes.values():
        homes.update(turn for run in episode.sequences for turn in run.turn_ids)
        homes.update(list(episode.left_out))
    refused = set()
    for record in log.letters:
        if _header(record, "topic") == TURNS.name and record.value is not None:
            event = TurnsEvent.decode(record.value)
            if isinstance(event, events.Turn):
                refused.add(event.turn_id)
    told = {event.turn_id for _, event in log.turns if isinstance(event, events.Turn)}
    verdict.counts["turns"] = len(told)
    verdict.lost += [f"turn {turn}" for turn in told if not homes[turn] and turn not in refused]
    verdict.duplicated += [f"turn {turn} in {n} places" for turn, n in homes.items() if n > 1]


def _journal(log: Log, verdict: Verdict, seen: Path) -> None:
    """Every reply whose end an agent has seen is in the log."""
    logged: Counter[tuple[str, tuple[int, ...]]] = Counter()
    known: set[str] = set()
    for _, event in log.turns:
        if isinstance(event, events.Turn) and event.turn_id not in known and not event.error:
            known.add(event.turn_id)
            logged[event.episode_id, _numbers(event.completion.ids)] += 1
    shown: Counter[tuple[str, str]] = Counter()
    for told in seen.read_bytes().splitlines():
        episode, key, retries = json.loads(told)
        shown[episode, key] += 1
        verdict.counts["repeated_calls"] += retries > 0
    verdict.counts["seen"] = shown.total()
    for (episode, key), times in shown.items():
        there = logged[episode, tuple(oracle.completion(key))]
        if there < times:
            verdict.lost.append(f"call {key} of {episode}: seen {times} times, logged {there}")


def _numbers(ids: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(ids) // 4}I", ids)


def _letters(log: Log, verdict: Verdict) -> None:
    for record in log.letters:
        reason = _header(record, "reason")
        verdict.letters[reason] += 1
        if reason not in LETTERS:
            verdict.wrong.append(f"dead letter {reason}: {_header(record, 'detail')}")


def _header(record: Any, name: str) -> str:
    for key, value in record.headers:
        if key.endswith(name):
            return value.decode()
    return ""


def _batches(
    log: Log,
    verdict: Verdict,
    tasks: dict[str, int],
    episodes: dict[str, tuple[Any, events.Episode]],
) -> None:
    """Every task one Expected and one Batch; every sample an episode or an exclusion."""
    expected = Counter(
        event.task_id for _, event in log.episodes if isinstance(event, events.Expected)
    )
    batches: dict[str, events.Batch] = {}
    for _, batch in log.batches:
        if batch.task_id in batches:
            verdict.duplicated.append(f"task {batch.task_id} has two batches")
        batches[batch.task_id] = batch
    for task, size in tasks.items():
        if expected[task] != 1:
            (verdict.duplicated if expected[task] else verdict.lost).append(
                f"task {task}: {expected[task]} times Expected"
            )
        if task not in batches:
            verdict.lost.append(f"task {task} has no batch")
            continue
        batch = batches[task]
        names = [one.sample for one in (*batch.episodes, *batch.exclusions)]
        if sorted(names) != list(range(size)):
            verdict.wrong.append(f"task {task}: its batch names samples {sorted(names)}")
        for pointer in batch.episodes:
            _pointer(pointer, task, verdict, episodes)
        for one in batch.exclusions:
            verdict.exclusions[one.reason] += 1
            if one.reason == "unrewarded" and _quiet(one, episodes):
                continue
            if one.reason not in EXCLUSIONS:
                verdict.wrong.append(f"{task}/{one.sample} is left out: {one.reason}")
    verdict.wrong += [f"nobody asked for task {task}" for task in batches.keys() - tasks.keys()]
    verdict.counts["tasks"] = len(tasks)
    verdict.counts["samples"] = sum(tasks.values())
    verdict.counts["batches"] = len(log.batches)
    verdict.counts["batched"] = sum(len(batch.episodes) for batch in batches.values())


def _quiet(one: events.Exclusion, episodes: dict[str, tuple[Any, events.Episode]]) -> bool:
    """Whether the script of an excluded sample says that no reward comes."""
    if one.episode_id not in episodes:
        return False
    episode = episodes[one.episode_id][1]
    seed = int(episode.task_id[1:].split("-")[0])
    play = oracle.play_of(seed, episode.task_id, episode.sample, episode.attempt)
    return play.ending == "unrewarded"


def _pointer(
    pointer: events.Pointer,
    task: str,
    verdict: Verdict,
    episodes: dict[str, tuple[Any, events.Episode]],
) -> None:
    if pointer.episode_id not in episodes:
        verdict.lost.append(f"episode {pointer.episode_id} of the batch of {task}")
        return
    record, episode = episodes[pointer.episode_id]
    if (pointer.partition, pointer.offset, pointer.digest, pointer.sample, task) != (
        record.partition,
        record.offset,
        sha256(record.value).hexdigest(),
        episode.sample,
        episode.task_id,
    ):
        verdict.wrong.append(f"the pointer to {pointer.episode_id} leads elsewhere")
    if pointer.reward != episode.reward:
        verdict.wrong.append(f"the batch of {task} gives {pointer.episode_id} another reward")


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
            first = entry.step if entry.optimized else entry.step + 1
            for step in [one for one in kept if one >= first]:
                del kept[step]
        if entry.optimized:
            kept[entry.step] = entry
    return [kept[step] for step in sorted(kept)]


def _training(log: Log, verdict: Verdict, episodes: dict[str, tuple[Any, events.Episode]]) -> None:
    """Each batch used exactly once along the line of checkpoints, up to where it has come."""
    steps = [step for _, step in log.steps]
    kept = line(steps)
    verdict.counts["steps"] = len(kept)
    verdict.counts["trainer_starts"] = max((step.incarnation for step in steps), default=0)
    numbers = [step.step for step in kept]
    if numbers != list(range(1, len(numbers) + 1)):
        verdict.lost.append(f"the line of checkpoints has steps {numbers}")
    used: Counter[int] = Counter()
    refused: defaultdict[int, set[str]] = defaultdict(set)
    for step in kept:
        for one in step.used:
            used[one.offset] += one.rows
    for step in steps:
        for refusal in step.refused:
            refused[refusal.offset].add(refusal.reason)
    reached = max((step.position for step in kept), default=0)
    waiting = 0
    for record, batch in log.batches:
        rows = sum(
            len(episodes[one.episode_id][1].sequences)
            for one in batch.episodes
            if one.episode_id in episodes
        )
        if used[record.offset] > rows:
            verdict.duplicated.append(
                f"batch {record.offset}: {used[record.offset]} rows used of {rows}"
            )
        elif record.offset < reached and used[record.offset] < rows:
            if not refused[record.offset] & {"zero_variance"}:
                verdict.lost.append(
                    f"batch {record.offset}: {used[record.offset]} rows used of {rows}"
                )
        elif record.offset >= reached:
            waiting += rows - used[record.offset]
    verdict.counts["rows_used"] = used.total()
    verdict.counts["rows_waiting"] = waiting
    _versions(log, verdict)


def _versions(log: Log, verdict: Verdict) -> None:
    """No policy version stands for two sets of weights."""
    weights: dict[int, str] = {}
    for _, step in log.steps:
        if step.weights and weights.setdefault(step.version, step.weights) != step.weights:
            verdict.duplicated.append(f"version {step.version} stands for two sets of weights")
