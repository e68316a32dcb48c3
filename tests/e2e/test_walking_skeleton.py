"""The whole path once: one task, one agent, one turn, one batch, one optimizer step."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from odradek.infra.app.project import load
from odradek.infra.app.session.session import running
from odradek.infra.app.session.training import TrainingCourse
from odradek.infra.bus import BusSettings
from odradek.infra.client import deploy
from odradek.schemas.events import Task
from odradek.streams.verify.report import verify

AGENT = """
from odradek.agents import Rollout
from openai import AsyncOpenAI

async def play(rollout: Rollout) -> None:
    llm = AsyncOpenAI(base_url=rollout.base_url, api_key=rollout.api_key)
    messages = [{"role": "user", "content": "1-3?"}]
    await llm.chat.completions.create(model=rollout.model, messages=messages, max_tokens=2)
    rollout.reward("game", float(rollout.sample))
"""
PROJECT = """
[engine]
model = "tiny"
warm_up_steps = 0
[[agents]]
name = "one"
run = "agent:play"
[trainer]
rows_per_step = 2
max_steps = 1
"""


TASK = """{"agent": "one", "group_size": 2, "rewards": {"game": 1.0}}\n"""

ASKED = Task(task_id="asked", agent="one", group_size=2, purpose="eval", rewards={"game": 1.0})
NOBODYS = Task(task_id="nobodys", agent="nobody", purpose="eval")


async def publish(folder: Path) -> None:
    """Publish a task as a user does."""
    (folder / "tasks.jsonl").write_text(TASK)
    command = (sys.executable, "-m", "odradek.infra.app.cli", "tasks", "publish", "tasks.jsonl")
    publishing = await asyncio.create_subprocess_exec(*command, cwd=folder)
    assert 0 == await publishing.wait()


def traces(file: Path) -> dict[str, set[str]]:
    """Trace id -> names of its spans."""
    found: dict[str, set[str]] = {}
    for line in file.read_text().splitlines():
        span = json.loads(line)
        found.setdefault(span["context"]["trace_id"], set()).add(span["name"])
    return found


AT_REST = {"dispatcher", "agent-one", "intake", "assembler", "grouper"}


@pytest.mark.broker
@pytest.mark.torch
@pytest.mark.slow
async def test_one_task_becomes_one_step(
    bus: BusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's two samples become one batch, the batch moves the weights once, all in one trace.

    `deploy` returns what becomes of tasks, one result each, whatever that is. Then nobody is behind,
    although markers of transactions stand at the ends of all topics.
    """
    monkeypatch.setenv("ODRADEK_TRACE_FILE", str(tmp_path / "spans.jsonl"))
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", bus.bootstrap_servers)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)
    monkeypatch.setenv("ODRADEK_TOPIC_PARTITIONS", "2")
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "odradek.toml").write_text(PROJECT)

    async with running(load(tmp_path), print) as session:
        course = TrainingCourse(session)
        await publish(tmp_path)
        async with asyncio.timeout(60):
            while not session.tally.steps:
                await course.changed()
        report = await verify(session.bus)
        deployed = await deploy([ASKED, NOBODYS], 60, bus=session.bus)
        async with asyncio.timeout(60):  # a batch without a step is the trainer's to do
            while not AT_REST <= {name for name, lag in session.watch.lags.items() if not lag}:
                await asyncio.sleep(0.2)

    assert list(session.tally.steps) == [1]
    assert session.tally.steps[1].metrics["rows"] == 2
    assert session.tally.version == 2
    wanted = {"tasks": 1, "samples": 2, "turns": 2, "episodes": 2, "batches": 1, "exclusions": {}}
    assert {name: report.conservation[name] for name in wanted} == wanted
    assert report.closed
    assert ["completed", "refused"] == [result.outcome for result in deployed]
    assert [0.0, 1.0] == [episode.reward for episode in deployed[0].episodes]
    assert deployed[0].episode.sequences
    spans = next(
        names for names in traces(tmp_path / "spans.jsonl").values() if "task.publish" in names
    )
    path = {
        "task.publish",
        "dispatch.group",
        "agent.run",
        "proxy.turn",
        "assemble.emit",
        "group.emit",
    }
    assert path <= spans
