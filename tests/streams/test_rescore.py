"""Re-scoring: each completed conversation is judged anew, and a kill makes nothing lost or double."""

import os
import signal
import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.bus import to_end
from odradek.schemas import codec
from odradek.schemas.events import Outcome, Reward
from odradek.schemas.revisions import RevisionBook
from odradek.schemas.topics import DLQ, REVISIONS
from odradek.streams.errors import RewardFailed
from odradek.streams.judges import rescore as module
from odradek.streams.judges.named import NamedJudge
from odradek.streams.judges.rescore import RescoreFilter, rescore
from tests.support.streams.conversations import conversation, write
from tests.support.suite.child_processes import python_path

MODULE = """
import os, signal

def length(conversation):
    if conversation.item == "raises":
        raise ValueError("of an agent")
    if conversation.item == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return float(len(conversation.episode_id))

async def waits(conversation):
    return length(conversation)
"""


@pytest.fixture
def judges(tmp_path, monkeypatch):
    """A folder with reward functions, where the test runs."""
    (tmp_path / "judges.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


async def run(bus, function="judges:length", wanted=RescoreFilter("brief"), **more):
    judge = NamedJudge(function, 1)
    try:
        await judge.start()
        return await rescore(bus, judge, wanted, name="brief", concurrency=1, **more)
    finally:
        await judge.aclose()


async def late(bus) -> list[Reward]:
    return [codec.decode(record.value, Reward) async for record in to_end(bus, REVISIONS.name)]


@pytest.mark.processes
@pytest.mark.parametrize("function", ["length", "waits"])
async def test_what_fails_is_in_its_place_among_many(judges, function):
    """A function that raises has no number, and one that kills its worker takes no neighbour along."""
    judge = NamedJudge(f"judges:{function}", 1)
    items = ["", "raises", "", "", "dies", ""] if function == "length" else ["", "raises", ""]
    values = [codec.encode(conversation("e", item=item)) for item in items]
    try:
        await judge.start()
        verdicts = await judge.judge_many(values)
    finally:
        await judge.aclose()
    assert [not item for item in items] == [verdict == 1.0 for verdict in verdicts]
    failures = {item: str(v) for item, v in zip(items, verdicts, strict=True) if item}
    assert all(isinstance(v, RewardFailed) for v in verdicts if v != 1.0)
    assert "ValueError" in failures["raises"]
    assert "SIGKILL" in failures.get("dies", "SIGKILL")


@pytest.mark.broker
async def test_every_completed_conversation_is_judged_anew(bus, judges):
    """Those of other agents, of children, of other components and of failed runs are left out."""
    wanted = [conversation(f"e{number}") for number in range(5)]
    others = [
        conversation("child", parent="e1"),
        conversation("failed", outcome=Outcome.FAILED),
        conversation("other", agent="other"),
        conversation("component", reward_components=("game",)),
    ]
    await write(bus, *wanted, *others)
    result = await run(bus, wanted=RescoreFilter("brief", agent="hilo"))
    assert (5, 4, 0) == (result.judged, result.passed, result.failed)
    rewards = await late(bus)
    assert {each.episode_id for each in wanted} == {reward.episode_id for reward in rewards}
    assert {("brief", 2.0, "/rescore/brief")} == {(r.component, r.value, r.source) for r in rewards}


@pytest.mark.broker
async def test_a_name_goes_on_where_it_stopped(bus, judges):
    """A second run judges what is new, and `again` judges all."""
    await write(bus, conversation("e1"), conversation("e2"))
    assert 2 == (await run(bus)).judged
    await write(bus, conversation("e3"))
    assert 1 == (await run(bus)).judged
    assert 3 == (await run(bus, again=True)).judged


@pytest.mark.broker
async def test_what_fails_is_a_dead_letter(bus, judges):
    """The old reward stays, and the letter says why there is no new one."""
    await write(bus, conversation("good"), conversation("bad", item="raises"))
    result = await run(bus)
    assert (1, 1) == (result.judged, result.failed)
    (letter,) = [record async for record in to_end(bus, DLQ.name)]
    assert ("bad", b"reward_failed") == (letter.key, dict(letter.headers)["dlq-reason"])


@pytest.mark.broker
@pytest.mark.processes
@pytest.mark.parametrize("point", ["rescored_before_commit", "rescored_committed"])
async def test_a_kill_loses_nothing_and_changes_nothing(bus, judges, point, monkeypatch):
    """Killed on both sides of its commit, the same command goes on: each has its revision once."""
    names = [f"e{number}" for number in range(40)]
    await write(bus, *map(conversation, names))
    small = f"import {module.__name__} as m; m.WINDOW = 16; m.CHUNK = 4\n"
    command = [
        sys.executable, "-c", f"{small}from odradek.infra.app.cli import main; main()",
        "rescore", "--reward", "judges:length", "--component", "brief", "--json",
    ]  # fmt: skip
    env = {**os.environ, **kafka(bus), "ODRADEK_CRASH_AT": f"{point}:2"}
    killed = subprocess.run(command, env=env, timeout=120, check=False, capture_output=True)
    assert -signal.SIGKILL == killed.returncode, killed.stderr
    del env["ODRADEK_CRASH_AT"]
    ended = subprocess.run(command, env=env, timeout=120, check=True, capture_output=True)
    result = msgspec.json.decode(ended.stdout)
    assert (24 if point == "rescored_before_commit" else 8) == result["judged"]
    rewards = await late(bus)
    assert set(names) == {reward.episode_id for reward in rewards}
    book = RevisionBook()
    for offset, reward in enumerate(rewards):
        book.add(offset, reward)
    changes = Counter(len({each.value for each in book.of(name)}) for name in names)
    assert {1: 40} == changes
