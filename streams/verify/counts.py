"""Which record counts for what, and the sums in the end.

It shares no code with the stages beyond the schemas: it reads topics as anybody could.
"""

from collections import Counter
from functools import partial
from typing import Any

from odradek.infra.bus import Record, passed_over
from odradek.infra.bus.dead_letters import PREFIX
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, GroupOpened, Policy, Purpose, Step, Tick
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, MIXED, POLICIES, REVISIONS, STEPS, TURNS
from odradek.streams.verify.episodes import EpisodeCounts
from odradek.streams.verify.findings import Findings
from odradek.streams.verify.groups import Groups
from odradek.streams.verify.mixed import MixedBatches
from odradek.streams.verify.partial_events import CountedEpisode
from odradek.streams.verify.revisions import RevisionCounts
from odradek.streams.verify.trainer_runs import TrainerRuns


class Conservation:
    """Counts the records of the topics, in the order of each partition."""

    def __init__(self) -> None:
        self._findings = Findings()
        self._episodes = EpisodeCounts(self._findings)
        self._groups = Groups(self._findings)
        self._trained = TrainerRuns(self._findings)
        self._revisions = RevisionCounts()
        self._mixed = MixedBatches(self._findings)
        self._letters: Counter[str] = Counter()
        self._now = 0.0

    def feed(self, record: Record) -> None:
        """Count one committed record. A topic that the table does not name holds batches again."""
        self._now = max(self._now, record.timestamp)
        try:
            if record.topic == TURNS.name:
                self._episodes.turns_event(record)
            elif record.topic == EPISODES.name:
                self._task_event(record)
            elif record.topic == STEPS.name:
                self._trained.step(codec.decode(record.value, Step), record.offset)
            elif record.topic == REVISIONS.name:
                self._revisions.reward(record)
            elif record.topic == POLICIES.name:
                self._trained.policy(codec.decode(record.value, Policy))
            elif record.topic == DLQ.name:
                self._letter(record)
            else:
                self._batch(record, codec.decode(record.value, Batch))
        except InvalidRecord as error:
            # No event of ours; the stage that reads it makes it a dead letter.
            if record.topic != DLQ.name:
                passed_over(record, error)

    def _batch(self, record: Record, batch: Batch) -> None:
        self._trained.batch(record.topic, record.offset, batch)
        if record.topic == MIXED.name:
            self._mixed.written(record.offset, batch)
            return
        self._groups.batch(batch)
        if record.topic == BATCHES.name:
            self._mixed.closed(record.offset, batch)

    def _task_event(self, record: Record) -> None:
        event: Any = codec.decode(record.value, GroupOpened | CountedEpisode | Tick)
        if isinstance(event, GroupOpened):
            self._groups.opened(event, record.timestamp)
        elif isinstance(event, CountedEpisode):
            self._episodes.ended(record, event)

    def _letter(self, record: Record) -> None:
        """Which GroupOpened, EpisodeOpened or Turn a dead letter stands for."""
        self._letters[header(record.headers, f"{PREFIX}reason") or "unknown"] += 1
        origin = header(record.headers, f"{PREFIX}topic")
        if origin == TURNS.name:
            self._episodes.refused(record.value)
        elif origin == EPISODES.name:
            event: Any = codec.decode(record.value, GroupOpened | CountedEpisode | Tick)
            if isinstance(event, GroupOpened):
                self._groups.refused(event)

    def report(self) -> dict[str, Any]:
        """Conservation of training and evaluation, and what does not close.

        Keys: `conservation` (of training; `eval` beside it holds the same of evaluation),
        `lost` and `duplicated` (ids), `open` (ids still within their deadlines), `problems`
        (sentences), `trainers` (a table for each run of a trainer), `dead_letters` (reason: n),
        `revisions` (late rewards, the episodes that they are of, and those of unknown episodes),
        `imported` (episodes that were recorded elsewhere; no sum counts them),
        `repeats` (the same episode in the same bytes: what an at-least-once driver writes again
        after a crash, and its readers drop).
        """
        self._groups.check(self._now, self._episodes.finds)
        self._episodes.check(self._now)
        self._mixed.check()
        trainers = self._trained.check(
            self._episodes.rows_of,
            partial(self._revisions.revised, episodes=self._episodes.rewarded()),
        )
        tables = {purpose: self._table(purpose) for purpose in ("train", "eval")}
        return {
            "conservation": tables["train"],
            "eval": tables["eval"],
            "closed": all(table["closed"] for table in tables.values()),
            **self._findings.lists(),
            "trainers": trainers,
            "unattributed": len(self._episodes.unattributed),
            "repeats": self._episodes.repeats,
            "imported": len(self._episodes.imported),
            "revisions": self._revisions.table(
                self._episodes.opened.keys() | self._episodes.imported
            ),
            "dead_letters": dict(sorted(self._letters.items())),
        }

    def _table(self, purpose: Purpose) -> dict[str, Any]:
        table = self._groups.table(purpose)
        opened = self._episodes.opened
        episodes = {
            name
            for name, opening in opened.items()
            if opening.purpose == purpose and not opening.parent
        }
        sums = table["samples"] == table["episodes"] + sum(table["exclusions"].values())
        return table | {
            "turns": sum(episode in episodes for episode in self._episodes.turns.values()),
            "opened": len(episodes),
            "children": self._episodes.children(purpose),
            "closed": self._findings.none and sums and table["tasks"] == table["batches"],
        }
