"""From the ledger to a sink: read, fold, write, and remember how far."""

import dataclasses
import logging
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from odradek.infra.app.exports.line import RunLine
from odradek.infra.app.exports.sink import MetricsSink, SinkOptions, StepPoint
from odradek.infra.app.exports.state import ExportState, StateFile
from odradek.infra.bus import BusSettings, Record, at_beginning, at_end, event_of, reader
from odradek.infra.bus.reader import Positions, Start
from odradek.infra.errors import ExportRefused, NoRewind
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS

log = logging.getLogger("odradek")

Sinks = Callable[[SinkOptions], MetricsSink]
"""Makes a sink."""


class LedgerExport:
    """Writes one run's line to one sink.

    Args:
        sink: Made, and not yet written to. It is taken back to the state.
        state: How far an earlier export came.
        file: Where the state is kept.
    """

    def __init__(self, sink: MetricsSink, state: ExportState, file: StateFile) -> None:
        self.state = state
        self.runs: set[str] = set()
        """Runs that were met."""
        self._sink = sink
        self._file = file
        self._line = RunLine(state.run, state.incarnation, state.step)
        self._offset = state.offset
        self._rewind: int | None = None
        self._points: list[StepPoint] = []
        sink.rewind(state.step)

    def feed(self, record: Record) -> bool:
        """Take the ledger's next record; return whether there is something to flush."""
        self._offset = record.offset + 1
        entry: Step | None = event_of(record, Step)
        if entry is None:
            return False
        self.runs.add(entry.run)
        change = self._line.feed(entry, record.timestamp)
        if change.rewind is not None:
            self._take_back(change.rewind)
        if change.point is not None:
            self._points.append(change.point)
        return bool(self._points) or self._rewind is not None

    def _take_back(self, step: int) -> None:
        """Forget later points; what the sink has of them goes with the next flush."""
        log.info("run %s: steps after %d are taken back", self.state.run, step)
        self._points = [point for point in self._points if point.step <= step]
        if step < self.state.step:
            self._rewind = step if self._rewind is None else min(step, self._rewind)

    def flush(self) -> None:
        """Write what was fed and still counts, make it durable, then remember it.

        Dead between the two, the sink holds steps that the file does not: the next export takes
        them back and writes them again. The other way round they would be missing.

        Raises NoRewind from the sink, which then has got nothing of it.
        """
        if self._rewind is not None:
            self._sink.rewind(self._rewind)
        for point in self._points:
            self._sink.write(point)
        self._sink.flush()
        self._rewind, self._points = None, []
        line = self._line
        state = msgspec.structs.replace(
            self.state, offset=self._offset, incarnation=line.incarnation, step=line.step
        )
        if state != self.state:
            self._file.save(state)
            self.state = state


async def export(
    bus: BusSettings,
    sinks: Sinks,
    options: SinkOptions,
    *,
    name: str,
    from_start: bool = False,
    follow: bool = True,
    caught_up: Callable[[], None] | None = None,
) -> ExportState:
    """Write a run's steps to a sink until the ledger's end of now, or for ever.

    Args:
        bus: Where Kafka is.
        sinks: Makes the sink.
        options: What it is made with; its folder is made if need be.
        name: The sink's name in the table.
        from_start: Write the run anew, whatever an earlier export has written.
        follow: Go on for ever.
        caught_up: Called once the ledger's end of now is reached.

    Raises:
        ExportRefused: The state file fits neither this run nor this ledger, or another export
            writes there.
        TopicMissing: There is no ledger.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    file = StateFile(options.folder / f"{options.file_name}.{name}.json")
    begun = ExportState(run=options.run, sink=name, ledger=bus.topic(STEPS.name))
    with file.claimed():
        state = file.anew(begun) if from_start else file.load(begun)
        while True:
            sink = sinks(dataclasses.replace(options, attempt=state.attempt))
            try:
                exporting = LedgerExport(sink, state, file)
                await _run(bus, exporting, follow=follow, caught_up=caught_up)
            except NoRewind as why:
                state = msgspec.structs.replace(begun, attempt=state.attempt + 1)
                # First of all: a death from here on must not add to the old one again.
                file.save(state)
                log.warning("%s: attempt %d writes the whole run anew", why, state.attempt)
            else:
                return exporting.state
            finally:
                sink.close()


async def _run(
    bus: BusSettings,
    exporting: LedgerExport,
    *,
    follow: bool,
    caught_up: Callable[[], None] | None,
) -> None:
    """Read to the end of now, then go on from there.

    The first part is written as a whole, with what crashes have left of it: a sink that only adds
    would refuse each rewind on the way. Whoever is cancelled has nothing to flush: in the second
    part each step is, before the next record is awaited.
    """
    state = exporting.state
    past = reader.to_end(bus, STEPS.name, start=_starting_at(state), stall_s=None)
    async with aclosing(past) as records:
        async for record in records:
            exporting.feed(record)
    exporting.flush()
    if not exporting.state.step and state.run not in exporting.runs:
        met = ", ".join(map(repr, sorted(exporting.runs))) or "none"
        log.warning("the ledger has no step of run %r yet; its runs: %s", state.run, met)
    if caught_up is not None:
        caught_up()
    if not follow:
        return
    coming = reader.follow(bus, STEPS.name, start=_starting_at(exporting.state))
    async with aclosing(coming) as records:
        async for record in records:
            if exporting.feed(record):
                exporting.flush()


def _starting_at(state: ExportState) -> Start:
    """Where reading of the ledger begins, which has one partition."""

    async def start(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        first, ends = await at_beginning(reader, partitions), await at_end(reader, partitions)
        (ledger,) = partitions
        if state.offset > ends[ledger]:
            raise ExportRefused(
                f"entry {state.offset} of {state.ledger} comes next, and it has {ends[ledger]}: "
                "this is another ledger. Give --out another folder, or --from-start"
            )
        if 0 < state.offset < first[ledger]:
            log.warning(
                "retention has deleted %d entries of %s that were not exported",
                *(first[ledger] - state.offset, state.ledger),
            )
        return {ledger: max(state.offset, first[ledger])}

    return start
