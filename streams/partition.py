"""One partition of a stage: bytes in, bytes out. It does not repeat a predecessor's results.

Every driver feeds its records through a StagePartition, so decoding, dead letters and the done mark
are the same wherever a stage runs.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from odradek.infra.bus import OutgoingRecord, Record, check_place, letter
from odradek.infra.runtime import metrics, telemetry
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode, Outcome, Tick
from odradek.schemas.topics import DLQ
from odradek.streams.stage import DeadLetter, Emit, Fold, Stage

EXPIRED: Final = frozenset({Outcome.HOST_LOST, Outcome.UNREWARDED})
LATEST: Final = 253_402_300_799.0
"""The last second of the year 9999. A timestamp that a client gave may be anything."""


class StagePartition:
    """The state of a stage over one partition.

    Args:
        stage: What folds.
        number: Which partition of its source.
        position: The next offset to read.
        done: Emissions caused by records below this offset are already in the log.
        partitions: Of the stage's source, to know where keys belong; 0 where nobody knows.
    """

    def __init__(
        self,
        stage: Stage,
        number: int,
        position: int = 0,
        done: int = 0,
        *,
        partitions: int = 0,
    ) -> None:
        self.stage = stage
        self.number = number
        self.position = position
        self.done = done
        self.fold: Fold = stage.fold()
        self._read = codec.reader(stage.kind, max_bytes=stage.source.max_bytes)
        self._partitions = partitions
        self._dropped = 0
        self.letters = 0
        self.records = 0

    @property
    def low_water(self) -> int:
        """Where a new owner must begin to read."""
        return self.fold.low_water(self.position)

    @property
    def written(self) -> int:
        """The done mark to commit: what records below it cause is in the log."""
        return max(self.position, self.done)

    def feed(self, records: Iterable[Record]) -> list[OutgoingRecord]:
        """Fold the next records, in order; return what they cause to be written."""
        out: list[OutgoingRecord] = []
        before = self.records
        read, feed = self._read, self.fold.feed
        for record in records:
            if record.offset < self.position:
                continue
            self.position = record.offset + 1
            self.records += 1
            try:
                event = read(record.value)
                check_place(record, self._partitions)
                outputs = feed(record, event)
            except InvalidRecord as error:
                outputs = (DeadLetter(error.reason, error.detail),)
            if outputs and record.offset >= self.done:
                out.extend(
                    self._letter(record, output)
                    if isinstance(output, DeadLetter)
                    else self._write(record, output)
                    for output in outputs
                )
        self._count_repeats()
        if self.records > before:
            stage = self.stage
            metrics.count(metrics.CONSUMED, self.records - before, stage.source.name, stage.name)
        return out

    def _count_repeats(self) -> None:
        """Count what the fold dropped; a predecessor has counted what lies below the done mark."""
        dropped = self.fold.dropped.total()
        if self.position > self.done:
            metrics.moved(metrics.DUPLICATES, dropped - self._dropped, stage=self.stage.name)
        self._dropped = dropped

    def tick(self, now: float) -> OutgoingRecord:
        """A Tick for this partition."""
        tick = Tick(writer=self.stage.name)
        return OutgoingRecord(
            partition=self.number,
            topic=self.stage.source.name,
            key=None,
            value=codec.encode(tick),
            headers=codec.headers(
                tick,
                source=f"/{self.stage.name}",
                subject=str(self.number),
                event_id=f"tick/{self.stage.name}/{self.number}/{now:.3f}",
            ),
        )

    def _write(self, record: Record, emit: Emit) -> OutgoingRecord:
        with telemetry.span(
            f"{self.stage.name}.emit", parent=emit.trace, key=emit.key, topic=emit.topic.name
        ) as trace:
            try:
                value = codec.encode(emit.event)
            except InvalidRecord as error:
                return self._letter(record, DeadLetter(error.reason, f"emitting: {error.detail}"))
            noticed(self.stage.name, emit.event)
            headers = codec.headers(
                emit.event,
                source=emit.source or f"/{self.stage.name}",
                subject=emit.key,
                event_id=emit.event_id,
                traceparent=trace,
                at=datetime.fromtimestamp(min(max(emit.at, 0.0), LATEST), UTC),
            )
        return OutgoingRecord(topic=emit.topic.name, key=emit.key, value=value, headers=headers)

    def _letter(self, record: Record, why: DeadLetter) -> OutgoingRecord:
        self.letters += 1
        value, headers = letter(record, why.reason, why.detail, consumer=self.stage.name)
        return OutgoingRecord(topic=DLQ.name, key=record.key, value=value, headers=headers)


def noticed(stage: str, event: Any) -> None:
    """Count an emitted event, and what it says about trust."""
    if isinstance(event, Episode):
        metrics.count(metrics.EPISODES, 1, event.outcome.value)
        if event.outcome is Outcome.INCOMPLETE:
            metrics.moved(metrics.CAPTURE_GAPS, where=stage)
        elif event.outcome in EXPIRED:
            metrics.moved(metrics.EXPIRED, outcome=event.outcome.value)
    elif isinstance(event, Batch):
        metrics.count(metrics.BATCHES, 1, event.purpose, "true" if event.zero_variance else "false")
        for exclusion in event.exclusions:
            metrics.count(metrics.EXCLUSIONS, 1, exclusion.reason)
        missing = sum(exclusion.reason == "missing" for exclusion in event.exclusions)
        metrics.moved(metrics.EXPIRED, missing, outcome="missing")
