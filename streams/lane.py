"""One partition of a stage: bytes in, bytes out, silent about what a predecessor has told.

Every driver feeds its records through a Lane, so decoding, dead letters and the done mark are the
same wherever a stage runs.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from odradek.infra import telemetry
from odradek.infra.bus import Record, letter_headers
from odradek.schemas import codec
from odradek.schemas.codec import Headers
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Tick
from odradek.schemas.topics import DLQ
from odradek.streams.fold import Emit, Fold, Letter, Stage


class Outgoing(Struct, frozen=True):
    """A record to be written."""

    topic: str
    """Without prefix."""
    key: str | None
    value: bytes | None
    headers: Headers


class Lane:
    """The state of a stage over one partition.

    Args:
        stage: What folds.
        partition: Its number.
        position: The next offset to read.
        done: Emissions caused by records below this offset are already in the log.
    """

    def __init__(self, stage: Stage, partition: int, position: int = 0, done: int = 0) -> None:
        self.stage = stage
        self.partition = partition
        self.position = position
        self.done = done
        self.fold: Fold = stage.fold()
        self._read = codec.reader(stage.kind, max_bytes=stage.source.max_bytes)
        self.letters = 0
        self.records = 0

    @property
    def low_water(self) -> int:
        """Where a new owner must begin to read."""
        return self.fold.low_water(self.position)

    def feed(self, records: Iterable[Record]) -> list[Outgoing]:
        """Fold the next records, in order; return what they cause to be written."""
        out: list[Outgoing] = []
        read, feed = self._read, self.fold.feed
        for record in records:
            if record.offset < self.position:
                continue
            self.position = record.offset + 1
            self.records += 1
            try:
                outputs = feed(record, read(record.value))
            except InvalidRecord as error:
                outputs = (Letter(error.reason, error.detail),)
            if outputs and record.offset >= self.done:
                out.extend(
                    self._letter(record, output)
                    if isinstance(output, Letter)
                    else self._write(record, output)
                    for output in outputs
                )
        return out

    def tick(self, now: float) -> Outgoing:
        """A Tick for this partition."""
        tick = Tick(writer=self.stage.name)
        return Outgoing(
            topic=self.stage.source.name,
            key=None,
            value=codec.encode(tick),
            headers=codec.headers(
                tick,
                source=f"/{self.stage.name}",
                subject=str(self.partition),
                event_id=f"tick/{self.stage.name}/{self.partition}/{now:.3f}",
            ),
        )

    def _write(self, record: Record, emit: Emit) -> Outgoing:
        with telemetry.span(
            f"{self.stage.name}.emit", parent=emit.trace, key=emit.key, topic=emit.topic.name
        ) as trace:
            try:
                value = codec.encode(emit.event)
            except InvalidRecord as error:
                return self._letter(record, Letter(error.reason, f"emitting: {error.detail}"))
            headers = codec.headers(
                emit.event,
                source=emit.source or f"/{self.stage.name}",
                subject=emit.key,
                event_id=emit.event_id,
                traceparent=trace,
                at=datetime.fromtimestamp(emit.at, UTC),
            )
        return Outgoing(emit.topic.name, emit.key, value, headers)

    def _letter(self, record: Record, letter: Letter) -> Outgoing:
        self.letters += 1
        return Outgoing(
            DLQ.name,
            record.key,
            record.value,
            letter_headers(record, letter.reason, letter.detail, consumer=self.stage.name),
        )
