"""Exports: each step of a run's line stands in a sink once, whatever died, and sinks are a table."""

import asyncio
import csv
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.exports import SINKS, SinkEntry
from odradek.infra.app.exports.csv_file import CsvFile
from odradek.infra.app.exports.follow import LedgerExport, export
from odradek.infra.app.exports.line import RunLine
from odradek.infra.app.exports.sink import MemorySink, SinkOptions, StepPoint
from odradek.infra.app.exports.state import ExportState, StateFile
from odradek.infra.bus import KafkaAppender, Record, ensure_topics
from odradek.infra.errors import ExportRefused, NoRewind
from odradek.schemas import codec
from odradek.schemas.events import Refusal, Step
from odradek.schemas.topics import STEPS
from odradek.streams.verify.findings import Findings
from odradek.streams.verify.steps import RunLedger


def entry(incarnation, step, *, run="main", optimized=True, **more):
    """An entry of the ledger; its loss says which start made it."""
    more.setdefault("metrics", {"loss": incarnation + step / 1000})
    return Step(run=run, incarnation=incarnation, step=step, position=step, optimized=optimized, **more)  # fmt: skip


CRASHED = [
    entry(1, 0, optimized=False),
    entry(1, 1),
    entry(1, 2),
    entry(1, 2),  # its ack was lost
    entry(7, 1, run="other"),
    entry(1, 3),
    entry(2, 2, optimized=False, resumed_from="c2"),
    entry(1, 4),  # the first trainer was not dead yet
    entry(2, 3, skipped=True, optimized=False),
    entry(2, 4),
]
"""Step 3 is cut off and done again; by then it is skipped."""
LOSSES = {1: 1.001, 2: 1.002, 3: 2.003, 4: 2.004}


def record(offset, event):
    return Record(STEPS.name, 0, offset, "main", codec.encode(event), (), float(offset))


def state(**more):
    return ExportState(run="main", sink="memory", ledger=STEPS.name, **more)


def folded(entries, line=None):
    """A run's steps by number, as a sink that can rewind holds them."""
    line, steps = line or RunLine("main"), {}
    for at, one in enumerate(entries):
        change = line.feed(one, float(at))
        if change.rewind is not None:
            steps = {n: point for n, point in steps.items() if n <= change.rewind}
        if change.point is not None:
            assert change.point.step not in steps
            steps[change.point.step] = change.point
    return steps


def losses(steps):
    return {n: point.metrics["loss"] for n, point in steps.items()}


def test_a_step_that_was_done_again_takes_the_place_of_the_first():
    """Other runs, repeated appends and a trainer that is not dead yet change nothing."""
    steps = folded(CRASHED)
    assert LOSSES == losses(steps)
    assert [0.0, 0.0, 1.0, 0.0] == [steps[n].metrics["skipped"] for n in sorted(steps)]
    assert 9.0 == steps[4].at


def test_a_start_that_tells_a_step_again_takes_its_place():
    """As verify has it: what a later start says of a step counts."""
    entries = [entry(1, 1), entry(1, 2), entry(1, 3), entry(2, 2)]
    ledger = RunLedger("main", Findings())
    for one in entries:
        ledger.feed(one)
    assert {1: 1.001, 2: 2.002} == {n: step.metrics["loss"] for n, step in ledger.steps.items()}
    assert {1: 1.001, 2: 2.002} == losses(folded(entries))


@st.composite
def ledgers(draw):
    """Ledgers as trainers write them: each start goes on from a step before, and may die."""
    entries, last = [], 0
    for incarnation in range(1, draw(st.integers(1, 5)) + 1):
        if last and draw(st.booleans()):
            last += 1  # durable, but its trainer died before it could say so
            entries.append(entry(incarnation, last))
        else:
            last = draw(st.integers(0, last))
            entries.append(entry(incarnation, last, optimized=False))
        for _ in range(draw(st.integers(0, 4))):
            last += 1
            entries += [entry(incarnation, last)] * draw(st.integers(1, 2))
    return entries


@given(ledgers())
@settings(max_examples=200)
def test_the_steps_are_those_that_verify_counts(entries):
    """Whatever died when: the same steps from the same starts."""
    ledger = RunLedger("main", Findings())
    for one in entries:
        ledger.feed(one)
    expected = {n: step.metrics["loss"] for n, step in ledger.steps.items()}
    assert expected == losses(folded(entries))


DEATHS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(["before the flush", "before the state", "after"])
    ),
    max_size=5,
)
"""After how many records an export dies, and where."""


@given(entries=ledgers(), deaths=DEATHS)
@settings(max_examples=100)
def test_an_export_may_die_anywhere_and_no_step_stands_twice(entries, deaths, tmp_path_factory):
    """Before or after the sink's flush, and between that and the state: the next goes on."""
    file = StateFile(tmp_path_factory.mktemp("state") / "state.json")
    records = [record(at, one) for at, one in enumerate(entries)]
    sink = MemorySink()
    for n_fed, death in [*deaths, (len(records), "after")]:
        before = file.load(state())
        exporting = LedgerExport(sink, before, file)
        for one in records[before.offset :][:n_fed]:
            exporting.feed(one)
        if death != "before the flush":
            exporting.flush()
        if death == "before the state":
            file.save(before)
    assert losses(folded(entries)) == losses(sink.durable)


class FullDisk(MemorySink):
    """Nothing gets through its flush."""

    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_step_that_no_flush_got_through_is_not_said_to_be_written(tmp_path):
    """The state is written last: the next export writes the step."""
    file = StateFile(tmp_path / "state.json")
    exporting = LedgerExport(FullDisk(), state(), file)
    exporting.feed(record(0, entry(1, 1)))
    with pytest.raises(OSError, match="No space left"):
        exporting.flush()
    assert state() == file.load(state())


def test_an_entry_gives_its_numbers_to_the_point():
    """Beside its metrics: version, position, and how many rows it refused, whole batches left out."""
    refused = (Refusal(offset=1, reason="stale", row=0), Refusal(offset=2, reason="eval"))
    change = RunLine("main").feed(entry(1, 1, version=3, refused=refused), 9.0)
    expected = {"loss": 1.001, "version": 3, "position": 1, "skipped": 0, "rows_refused": 1}
    assert StepPoint(1, 9.0, expected) == change.point


def test_a_sink_that_cannot_take_steps_back_says_so(tmp_path):
    """What keeps a second value of a step out of a tool that would show both."""
    sink = MemorySink(append_only=True)
    exporting = LedgerExport(sink, state(), StateFile(tmp_path / "state.json"))
    with pytest.raises(NoRewind, match="steps 3 to 3 are written"):
        for at, one in enumerate(CRASHED):
            exporting.feed(record(at, one))
            exporting.flush()
    assert {1, 2, 3} == set(sink.durable)


def point(step, **metrics):
    return StepPoint(step, 1000.5 + step, {name: float(value) for name, value in metrics.items()})


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_has_a_line_for_each_step_and_a_column_for_each_metric(tmp_path):
    """A metric that comes later gets a column, empty where it was not measured."""
    sink = CsvFile(SinkOptions("main", tmp_path))
    sink.rewind(0)
    sink.write(point(1, loss=0.25))
    sink.flush()
    sink.write(point(2, loss=1e-9, kl=3))
    sink.flush()
    assert [
        {"step": "1", "time": "1001.500", "loss": "0.25", "kl": ""},
        {"step": "2", "time": "1002.500", "loss": "1e-09", "kl": "3"},
    ] == table(tmp_path / "main.csv")


def test_a_csv_is_taken_back_to_a_step_with_the_line_that_a_crash_cut_off(tmp_path):
    """A cut-off line is no step; what follows stands on a line of its own."""
    sink = CsvFile(SinkOptions("main", tmp_path))
    sink.rewind(0)
    for step in (1, 2, 3):
        sink.write(point(step, loss=step))
    sink.flush()
    path = tmp_path / "main.csv"
    path.write_text(path.read_text()[:-3])

    again = CsvFile(SinkOptions("main", tmp_path))
    again.rewind(1)
    again.write(point(2, loss=20))
    again.flush()
    assert [("1", "1"), ("2", "20")] == [(row["step"], row["loss"]) for row in table(path)]
    again.rewind(0)
    assert [] == table(path)


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name.isprintable() and name not in {"step", "time"}), st.floats(allow_nan=False, allow_infinity=False), min_size=1))  # fmt: skip
@settings(max_examples=100)
def test_a_csv_gives_any_metric_back_bit_by_bit(tmp_path_factory, metrics):
    """Names with commas and quotes among them."""
    folder = tmp_path_factory.mktemp("csv")
    sink = CsvFile(SinkOptions("main", folder))
    sink.rewind(0)
    sink.write(StepPoint(1, 0.0, metrics))
    sink.flush()
    CsvFile(SinkOptions("main", folder)).rewind(1)
    (row,) = table(folder / "main.csv")
    assert metrics == {name: float(row[name]) for name in metrics}
    assert all(
        math.copysign(1, metrics[name]) == math.copysign(1, float(row[name])) for name in metrics
    )


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("main", "main"),
        ("a/b", "a_b-c14cddc0"),
        ("..", "__-5ec1f7e7"),
        ("ä" * 256, "_" * 60 + "-080cf4f4"),
    ],
)
def test_no_runs_name_leaves_the_folder_or_meets_anothers(tmp_path, run, expected):
    """Names that are no file names get the beginning of their sha256."""
    assert expected == SinkOptions(run, tmp_path).file_name


def test_a_tool_that_is_not_installed_is_one_line_that_names_the_command():
    """Whatever module of it is missing."""
    entry = SinkEntry("odradek.no_such_tool:Sink", "Shows.", "shower")
    with pytest.raises(
        ExportRefused, match=r"needs odradek.no_such_tool: pip install 'odradek\[shower\]'"
    ):
        entry.load()


def test_each_tool_has_an_extra_of_the_package():
    """So the line above is one that works."""
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert {entry.extra for entry in SINKS.values() if entry.extra} <= set(extras)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no state of an export"),
        (json.dumps({"run": "other", "sink": "memory", "ledger": STEPS.name}), "run 'other'"),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path, text, message):
    """And `--from-start` is what goes over it."""
    file = StateFile(tmp_path / "main.memory.json")
    file.path.write_text(text)
    with pytest.raises(ExportRefused, match=message):
        file.load(state())
    assert state().run == file.anew(state()).run


def test_two_exports_of_one_run_are_refused(tmp_path):
    """Each step would be written twice."""
    file = StateFile(tmp_path / "main.memory.json")
    with (
        file.claimed(),
        pytest.raises(ExportRefused, match="another export"),
        StateFile(file.path).claimed(),
    ):
        pass


# Over a real broker


def begun(bus, sink="memory", **more):
    return ExportState(run="main", sink=sink, ledger=bus.topic(STEPS.name), **more)


async def tell(bus, *entries):
    appender = await KafkaAppender.connect(bus)
    for one in entries:
        await appender.append(STEPS.name, key=one.run, value=codec.encode(one))
    await appender.append(STEPS.name, key="main", value=b"no entry")
    await appender.aclose()


@pytest.mark.broker
async def test_an_export_goes_on_where_it_ended(bus, tmp_path):
    """Twice to the end of now, once following; every step stands in the file once."""
    await ensure_topics(bus)
    options = SinkOptions("main", tmp_path / "out")
    path = options.folder / "main.csv"
    run = {"bus": bus, "sinks": CsvFile, "options": options, "name": "csv"}

    await tell(bus, *CRASHED[:6])
    first = await export(**run, follow=False)
    assert (3, 1, 1) == (first.step, first.incarnation, first.attempt)
    assert ["1", "2", "3"] == [row["step"] for row in table(path)]

    caught_up = asyncio.Event()
    following = asyncio.create_task(export(**run, caught_up=caught_up.set))
    await caught_up.wait()
    await tell(bus, *CRASHED[6:])
    while not path.exists() or len(table(path)) < 4:
        await asyncio.sleep(0.01)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert LOSSES == {int(row["step"]): float(row["loss"]) for row in table(path)}

    before = path.read_bytes()
    assert 4 == (await export(**run, follow=False)).step
    assert before == path.read_bytes()
    anew = await export(**run, follow=False, from_start=True)
    assert (4, 2) == (anew.step, anew.attempt)
    assert before == path.read_bytes()


@pytest.mark.broker
async def test_a_sink_that_only_adds_gets_the_whole_run_anew(bus, tmp_path):
    """The old one stays as it was; the new one has each step once."""
    await ensure_topics(bus)
    made = []

    def sinks(options):
        made.append((options.attempt, MemorySink(append_only=True)))
        return made[-1][1]

    options = SinkOptions("main", tmp_path)
    await tell(bus, *CRASHED[:6])
    caught_up = asyncio.Event()
    work = export(bus, sinks, options, name="memory", caught_up=caught_up.set)
    following = asyncio.create_task(work)
    await caught_up.wait()
    await tell(bus, *CRASHED[6:])
    while len(made) < 2 or len(made[-1][1].durable) < 4:
        await asyncio.sleep(0.01)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    ended = StateFile(tmp_path / "main.memory.json").load(begun(bus))
    assert [1, 2] == [attempt for attempt, _ in made]
    assert [{1: 1.001, 2: 1.002, 3: 1.003}, LOSSES] == [losses(sink.durable) for _, sink in made]
    assert all(sink.closed for _, sink in made)
    assert (2, 4) == (ended.attempt, ended.step)


@pytest.mark.broker
async def test_who_dies_before_the_new_run_has_a_step_does_not_add_to_the_old_one(bus, tmp_path):
    """That the old one is left behind is written before the new one is begun."""
    await ensure_topics(bus)
    await tell(bus, *CRASHED)
    held = begun(bus, offset=4, incarnation=1, step=3)
    file = StateFile(tmp_path / "main.memory.json")
    file.save(held)
    old = MemorySink(append_only=True, durable={3: point(3, loss=1.003)})
    sinks = iter([old])
    with pytest.raises(RuntimeError):
        await export(
            bus, lambda _: next(sinks), SinkOptions("main", tmp_path), name="memory", follow=False
        )
    assert begun(bus, attempt=2) == file.load(held)
    assert {3} == set(old.durable)


@pytest.mark.broker
async def test_a_state_of_another_kafka_is_refused(bus, tmp_path):
    """Its place lies behind the end of this ledger."""
    await ensure_topics(bus)
    StateFile(tmp_path / "main.csv.json").save(begun(bus, sink="csv", offset=9, step=3))
    with pytest.raises(ExportRefused, match=r"entry 9 of .* this is another ledger"):
        await export(bus, CsvFile, SinkOptions("main", tmp_path), name="csv", follow=False)


@pytest.mark.broker
async def test_a_run_that_is_not_there_is_named_with_those_that_are(bus, tmp_path, caplog):
    """A wrong --run is no empty file without a word."""
    await ensure_topics(bus)
    await tell(bus, *CRASHED)
    await export(bus, CsvFile, SinkOptions("maim", tmp_path), name="csv", follow=False)
    assert "no step of run 'maim' yet; its runs: 'main', 'other'" in caplog.text
