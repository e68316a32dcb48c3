"""The host as a process: kill -9, SIGTERM, and mistakes of people."""

import asyncio
import os
import signal
import sys

import pytest

pytestmark = pytest.mark.processes

AGENT = """
import asyncio, os

async def play(rollout):
    with open(os.environ["PLAYS"], "a") as file:
        file.write(f"{rollout.task.input} {rollout.attempt}\\n")
    if rollout.attempt == 1 and rollout.task.input == "hang":
        await asyncio.Event().wait()
    rollout.reward("game", 1.0)
"""


def environment(stage, tmp_path):
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("ODRADEK_")},
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": stage.bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": stage.bus.topic_prefix,
        "ODRADEK_TOPIC_PARTITIONS": str(stage.bus.topic_partitions),
        "ODRADEK_PROXY_URL": stage.proxy.url,
        "ODRADEK_TOKEN_KEYS": "k" * 40,
        "PLAYS": str(tmp_path / "plays"),
    }


async def begin(stage, tmp_path, *arguments):
    (tmp_path / "agent.py").write_text(AGENT)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "odradek.infra.app.cli",
        "agent",
        *arguments,
        cwd=tmp_path,
        env=environment(stage, tmp_path),
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.broker
async def test_kill_9_costs_an_attempt_and_nothing_else(stage, tmp_path):
    """What went on is played again, what was done is not; SIGTERM ends the process cleanly."""
    plays = tmp_path / "plays"
    plays.touch()
    words = ("agent:play", "--name", "player", "--instance", "one", "--concurrency", "20")
    first = await begin(stage, tmp_path, *words)
    await stage.send("done", given="quick")
    await stage.ended("done")
    for number in range(6):
        await stage.send(f"m{number}", given="hang")
    await stage.until(lambda: plays.read_text().count("hang 1") == 6)
    first.kill()
    await first.wait()
    second = await begin(stage, tmp_path, *words)
    try:
        await stage.ended(*(f"m{number}" for number in range(6)), attempt=2)
    finally:
        second.send_signal(signal.SIGTERM)
        _, errors = await second.communicate()
    assert 0 == second.returncode, errors.decode()
    assert b"ready: agent player" in errors
    told = sorted(plays.read_text().splitlines())
    assert sorted(["quick 1", *["hang 1"] * 6, *["hang 2"] * 6]) == told
    assert 7 == len(stage.proxy.seals)
    story = await stage.story()
    assert 6 == sum(type(e).__name__ == "EpisodeAborted" and e.retry for e in story)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("agent:ply",), "did you mean 'play'"),
        (("--command", "no-such-program-here"), "there is no program"),
        ((), "name either module:function, --command, --harness or --a2a-url, and only one"),
        (("agent:play", "--name", "a/b"), "is no agent's name"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(stage, tmp_path, arguments, told):
    """No traceback for what a person can put right."""
    process = await begin(stage, tmp_path, *arguments)
    _, errors = await process.communicate()
    assert 2 == process.returncode
    assert told in errors.decode()
    assert "Traceback" not in errors.decode()


@pytest.mark.broker
async def test_keys_are_missed_at_once(stage, tmp_path):
    """A host without the proxy's keys could seal nothing."""
    (tmp_path / "agent.py").write_text(AGENT)
    given = environment(stage, tmp_path)
    del given["ODRADEK_TOKEN_KEYS"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "odradek.infra.app.cli",
        "agent",
        "agent:play",
        cwd=tmp_path,
        env=given,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert 2 == process.returncode
    assert "ODRADEK_TOKEN_KEYS" in errors.decode()
