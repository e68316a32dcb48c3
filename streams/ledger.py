"""Conservation: what went in, what came out, and what does not close. Counting, no I/O.

It shares no code with the stages beyond the schemas: it reads topics as anybody could.
"""

from collections import Counter
from typing import Any, Final

from msgspec import Struct

from odradek.infra.bus import Record, passed_over
from odradek.infra.bus.deadletter import PREFIX
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Aborted as _Aborted
from odradek.schemas.events import (
    Batch,
    Expected,
    Opened,
    Outcome,
    Purpose,
    Reward,
    Sealed,
    Tick,
    Timeouts,
    Turn,
)
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TURNS

TurnsEvent: Final = Opened | Turn | Reward | Sealed | _Aborted | Tick
SLACK_S: Final = 120.0
"""A story is lost, not open, once the log has gone on this long past its last deadline."""


class Run(Struct, frozen=True):
    """The part of a Sequence that counts."""

    turn_ids: tuple[str, ...] = ()


class Ended(Struct, frozen=True, tag="episode", kw_only=True):
    """The part of an Episode that counts."""

    episode_id: str
    task_id: str
    sample: int
    purpose: Purpose = "train"
    retry: bool = False
    outcome: Outcome = Outcome.COMPLETED
    revision: int = 0
    unattributed: bool = False
    sequences: tuple[Run, ...] = ()
    left_out: dict[str, str] = {}


class Told(Struct, frozen=True):
    """An Expected or an Opened, and until when it may stay open."""

    purpose: Purpose
    size: int
    deadline: float


class Ledger:
    """Counts the records of the topics, in any order."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._now = 0.0
        self._expected: dict[str, list[Told]] = {}
        self._opened: dict[str, Told] = {}
        self._unattributed: set[str] = set()
        self._turns: dict[str, str] = {}
        self._episodes: dict[str, dict[str, Ended]] = {}
        self._repeats = 0
        self._places: dict[tuple[int, int], tuple[str, str]] = {}
        self._batches: dict[str, list[Batch]] = {}
        self._refused: set[tuple[str, str]] = set()
        self._letters: Counter[str] = Counter()

    def feed(self, record: Record) -> None:
        """Count one committed record of `rl.turns`, `rl.episodes`, `rl.batches` or `rl.dlq`."""
        self._now = max(self._now, record.timestamp)
        try:
            if record.topic == TURNS.name:
                self._turn_story(record)
            elif record.topic == EPISODES.name:
                self._task_story(record)
            elif record.topic == BATCHES.name:
                batch: Batch = codec.decode(record.value, Batch)
                if not batch.origin:
                    self._batches.setdefault(batch.task_id, []).append(batch)
            elif record.topic == DLQ.name:
                self._letter(record)
        except InvalidRecord as error:
            # No event of ours; the stage that reads it makes it a dead letter.
            if record.topic != DLQ.name:
                passed_over(record, error)

    def _turn_story(self, record: Record) -> None:
        event: Any = codec.decode(record.value, TurnsEvent, max_bytes=TURNS.max_bytes)
        if isinstance(event, Turn):
            self._turns.setdefault(event.turn_id, event.episode_id)
        elif isinstance(event, Opened):
            times: Timeouts = event.timeouts
            deadline = record.timestamp + times.run_s + times.seal_s + times.reward_s
            self._opened.setdefault(event.episode_id, Told(event.purpose, 1, deadline))
            if event.unattributed:
                self._unattributed.add(event.episode_id)

    def _task_story(self, record: Record) -> None:
        event: Any = codec.decode(record.value, Expected | Ended | Tick)
        if isinstance(event, Expected):
            told = Told(event.purpose, event.group_size, record.timestamp + event.group_s)
            self._expected.setdefault(event.task_id, []).append(told)
        elif isinstance(event, Ended):
            digest = codec.digest(record.value or b"")
            self._places[record.partition, record.offset] = (event.episode_id, digest)
            if event.revision == 0:
                told_before = self._episodes.setdefault(event.episode_id, {})
                self._repeats += digest in told_before
                told_before[digest] = event

    def _letter(self, record: Record) -> None:
        """Which Expected, Opened, Turn or Episode a dead letter stands for."""
        self._letters[header(record.headers, f"{PREFIX}reason") or "unknown"] += 1
        origin = header(record.headers, f"{PREFIX}topic")
        if origin == TURNS.name:
            event: Any = codec.decode(record.value, TurnsEvent)
            if isinstance(event, Turn):
                self._refused.add(("turn", event.turn_id))
            elif isinstance(event, Opened):
                self._refused.add(("opened", event.episode_id))
        elif origin == EPISODES.name:
            event = codec.decode(record.value, Expected | Ended | Tick)
            if isinstance(event, Expected):
                self._refused.add(("expected", event.task_id))

    def report(self) -> dict[str, Any]:
        """Conservation of training and evaluation, and what does not close.

        Keys: `conservation` (of training; `eval` beside it holds the same of evaluation), `lost`
        and `duplicated` (ids), `open` (ids still within their deadlines), `problems` (sentences),
        `dead_letters` (reason: n), `repeats` (the same episode in the same bytes: what an
        at-least-once driver writes again after a crash, and its readers drop).
        """
        lost: list[str] = []
        twice: list[str] = []
        still: list[str] = []
        self._check_batches(lost, twice, still)
        self._check_episodes(lost, twice, still)
        self._check_turns(lost, twice)
        tables = {purpose: self._table(purpose) for purpose in ("train", "eval")}
        whole = not (lost or twice or still or self.problems)
        for table in tables.values():
            sums = table["samples"] == table["episodes"] + sum(table["exclusions"].values())
            table["closed"] = whole and sums and table["tasks"] == table["batches"]
        return {
            "conservation": tables["train"],
            "eval": tables["eval"],
            "closed": all(table["closed"] for table in tables.values()),
            "lost": sorted(lost),
            "duplicated": sorted(twice),
            "open": sorted(still),
            "problems": sorted(set(self.problems)),
            "unattributed": len(self._unattributed),
            "repeats": self._repeats,
            "dead_letters": dict(sorted(self._letters.items())),
        }

    def _check_batches(self, lost: list[str], twice: list[str], still: list[str]) -> None:
        """Every Expected in exactly one Batch; every pointer finds its episode."""
        for task, told in self._expected.items():
            # A repeat while its group was open is a dead letter, a later one a batch of its own.
            wanted = 1 if ("expected", task) in self._refused else len(told)
            have = len(self._batches.get(task, ()))
            if have < wanted:
                late = self._now > told[-1].deadline + SLACK_S
                (lost if late else still).append(f"task {task}")
            elif have > wanted:
                twice.append(f"task {task}")
        for task, batches in self._batches.items():
            if task not in self._expected:
                self.problems.append(f"task {task} has a batch, but was never expected")
            for batch in batches:
                self._check_batch(batch, lost)

    def _check_batch(self, batch: Batch, lost: list[str]) -> None:
        samples = [one.sample for one in batch.episodes]
        samples += [one.sample for one in batch.exclusions]
        if sorted(samples) != list(range(batch.group_size)):
            self.problems.append(f"task {batch.task_id}: its batch does not name each sample once")
        for pointer in batch.episodes:
            found = self._places.get((pointer.partition, pointer.offset))
            if found != (pointer.episode_id, pointer.digest):
                lost.append(f"episode {pointer.episode_id} of the batch of {batch.task_id}")

    def _check_episodes(self, lost: list[str], twice: list[str], still: list[str]) -> None:
        """Every Opened in exactly one Episode or dead letter."""
        for episode, told in self._opened.items():
            have = len(self._episodes.get(episode, ()))
            if have > 1:
                twice.append(f"episode {episode}")
            elif not have and ("opened", episode) not in self._refused:
                (lost if self._now > told.deadline + SLACK_S else still).append(
                    f"episode {episode}"
                )

    def _check_turns(self, lost: list[str], twice: list[str]) -> None:
        """Every acked turn in exactly one episode, unless it is a dead letter."""
        homes: dict[str, set[str]] = {}
        trained: Counter[str] = Counter()
        for episode, versions in self._episodes.items():
            for ended in list(versions.values())[:1]:
                within = [turn for run in ended.sequences for turn in run.turn_ids]
                trained.update(within)
                for turn in (*within, *ended.left_out):
                    homes.setdefault(turn, set()).add(episode)
        twice.extend(f"turn {turn}" for turn, n in trained.items() if n > 1)
        twice.extend(f"turn {turn}" for turn, at in homes.items() if len(at) > 1)
        for turn, episode in self._turns.items():
            ended_already = episode in self._episodes or episode not in self._opened
            if turn not in homes and ended_already and ("turn", turn) not in self._refused:
                lost.append(f"turn {turn}")

    def _table(self, purpose: Purpose) -> dict[str, Any]:
        tasks = [told for many in self._expected.values() for told in many]
        refused = [
            self._expected[task][0]
            for kind, task in self._refused
            if kind == "expected" and task in self._expected
        ]
        tasks = [one for one in tasks if one.purpose == purpose]
        batches = [
            batch for many in self._batches.values() for batch in many if batch.purpose == purpose
        ]
        exclusions: Counter[str] = Counter(
            one.reason for batch in batches for one in batch.exclusions
        )
        mine = {name for name, told in self._opened.items() if told.purpose == purpose}
        again = sum(one.purpose == purpose for one in refused)
        return {
            "tasks": len(tasks) - again,
            "samples": sum(one.size for one in tasks)
            - sum(one.size for one in refused if one.purpose == purpose),
            "turns": sum(episode in mine for episode in self._turns.values()),
            "episodes": sum(len(batch.episodes) for batch in batches),
            "batches": len(batches),
            "exclusions": dict(sorted(exclusions.items())),
            "retries": sum(batch.retries for batch in batches),
            "opened": len(mine),
            "closed": False,
        }
