"""Every step of a run stands once in each tool, as the tool itself reads it, whatever died.

`scripts/prove exports` runs them where all tools are installed.
"""

import asyncio
import contextlib
import json
import os
import signal
import struct
import sys
import uuid

import pytest

from odradek.infra.app.exports import SINKS
from odradek.infra.bus import KafkaAppender, ensure_topics
from odradek.schemas import codec
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS

pytestmark = [
    pytest.mark.exports,
    pytest.mark.broker,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("default"),  # the tools' own are not ours to mend
]


def entry(incarnation, step, *, optimized=True):
    """An entry of the ledger; its loss says which start made it."""
    return Step(run="main", incarnation=incarnation, step=step, position=step,
                optimized=optimized, metrics={"loss": incarnation + step / 1024})  # fmt: skip


FIRST = [entry(1, 0, optimized=False), entry(1, 1), entry(1, 2), entry(1, 3)]
AGAIN = [entry(2, 2, optimized=False), entry(2, 3), entry(2, 4)]
"""The trainer died, and does step 3 again."""
STEPS_ONCE = {1: 1 + 1 / 1024, 2: 1 + 2 / 1024, 3: 2 + 3 / 1024, 4: 2 + 4 / 1024}


def in_tensorboard(out, project):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "main"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def in_wandb(out, project):
    """Of the newest attempt; each export that went on has left a file of the same run."""
    attempts = json.loads((out / "main.wandb.json").read_text())["attempt"]
    name = "main" if attempts == 1 else f"main-{attempts}"
    files = sorted((out / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    return [row for file in files for row in wandb_rows(file)]


def wandb_rows(file):
    """(step, loss) of an offline run: LevelDB's log format, with a record of theirs in each."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, text = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        text += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in {1, 4}:  # whole, or the last part
            record, text = Record.FromString(text), b""
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: json.loads(item.value_json)
                         for item in record.history.item}  # fmt: skip
                yield items["_step"], items["loss"]


def in_trackio(out, project):
    from trackio.sqlite_storage import SQLiteStorage

    attempts = json.loads((out / "main.trackio.json").read_text())["attempt"]
    name = "main" if attempts == 1 else f"main-{attempts}"
    return [(row["step"], row["loss"]) for row in SQLiteStorage.get_logs(project, name)]


def in_mlflow(out, project):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(project)
    (run,) = client.search_runs([experiment.experiment_id])
    assert "main" == run.info.run_name
    history = client.get_metric_history(run.info.run_id, "loss")
    return [(metric.step, metric.value) for metric in history]


READERS = {"tensorboard": in_tensorboard, "wandb": in_wandb, "trackio": in_trackio, "mlflow": in_mlflow}  # fmt: skip


def test_each_tool_is_proved():
    """A sink that is added gets a reader here."""
    assert {name for name, sink in SINKS.items() if sink.extra} == set(READERS)


async def tell(bus, entries):
    appender = await KafkaAppender.connect(bus)
    for one in entries:
        await appender.append(STEPS.name, key="main", value=codec.encode(one))
    await appender.aclose()


class Exporting:
    """Runs `odradek export` for one tool, as a process of its own."""

    def __init__(self, bus, name, out, project):
        self.arguments = [
            *(sys.executable, "-m", "odradek.infra.app.cli", "export", name),
            *("--out", str(out), "--project", project),
        ]
        self.environment = {
            **os.environ,
            "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
            "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        }
        self.state = out / f"main.{name}.json"

    async def start(self, *more):
        return await asyncio.create_subprocess_exec(
            *self.arguments, *more, env=self.environment, stdout=asyncio.subprocess.DEVNULL
        )

    async def to_the_end(self):
        assert 0 == await (await self.start("--no-follow")).wait()

    async def reaches(self, process, step):
        """Wait until a step is said to be written."""
        while self.written() < step:
            assert process.returncode is None
            await asyncio.sleep(0.02)

    def written(self):
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self.state.read_text())["step"]
        return 0


@pytest.fixture(params=READERS)
async def tool(request, bus, tmp_path):
    """(bus, a way to run the export, what the tool shows by then: each row's step and loss)."""
    await ensure_topics(bus)
    project = f"p{uuid.uuid4().hex[:8]}"
    out = tmp_path / "out"
    exporting = Exporting(bus, request.param, out, project)
    return bus, exporting, lambda: [*READERS[request.param](out, project)]


async def test_steps_that_are_done_again_while_an_export_follows_stand_there_once(tool):
    """SIGTERM ends it in good order, and a second export adds nothing but what is new."""
    bus, exporting, shown = tool
    await tell(bus, FIRST)
    process = await exporting.start()
    await exporting.reaches(process, 3)
    await tell(bus, AGAIN)
    await exporting.reaches(process, 4)
    process.send_signal(signal.SIGTERM)
    assert 0 == await process.wait()
    assert sorted(STEPS_ONCE.items()) == shown()

    await tell(bus, [entry(2, 5)])
    await exporting.to_the_end()
    await exporting.to_the_end()
    assert [*sorted(STEPS_ONCE.items()), (5, 2 + 5 / 1024)] == shown()


async def test_a_killed_export_leaves_no_step_out_and_none_twice(tool):
    """Kill -9 with three steps said to be written; then the trainer dies, too."""
    bus, exporting, shown = tool
    await tell(bus, FIRST)
    process = await exporting.start()
    await exporting.reaches(process, 3)
    process.kill()
    await process.wait()
    await exporting.to_the_end()
    assert [(1, 1 + 1 / 1024), (2, 1 + 2 / 1024), (3, 1 + 3 / 1024)] == shown()

    await tell(bus, AGAIN)
    await exporting.to_the_end()
    assert sorted(STEPS_ONCE.items()) == shown()


async def test_from_the_start_writes_the_run_anew(tool):
    """Once more, and still each step once."""
    bus, exporting, shown = tool
    await tell(bus, FIRST)
    await exporting.to_the_end()
    process = await exporting.start("--no-follow", "--from-start")
    assert 0 == await process.wait()
    assert [1, 2, 3] == [step for step, _ in shown()]
