"""What people get wrong at the start of a process is one clear line, and exit code 2."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from odradek.infra.bus import ensure_topics, rows

pytestmark = pytest.mark.processes

KEY = "k" * 64
AGENT = "async def play(rollout): ...\n"
JUDGE = "def judge(conversation): return 0.0\n"

PROCESSES: dict[str, tuple[str, ...]] = {
    "dispatch": ("dispatch",),
    "agent": ("agent", "agent:play", "--name", "one"),
    "proxy": ("proxy", "--port", "0"),
    "intake": ("intake",),
    "assemble": ("assemble",),
    "group": ("group",),
    "reward": ("reward", "judge:judge", "--component", "c"),
    "verify": ("verify",),
    "tail": ("tail", "rl.tasks.v1"),
    "export": ("export", "csv", "--no-follow"),
    "evaluate": ("evaluate", "tasks.jsonl"),
    "replay": ("replay", "--batches", "0:1", "--to", "again"),
    "dlq": ("dlq", "list"),
    "tasks": ("tasks", "publish", "tasks.jsonl"),
}
"""Verbs that need a Kafka, with what they need besides."""


async def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and last line of stderr of a verb."""
    (folder / "agent.py").write_text(AGENT)
    (folder / "judge.py").write_text(JUDGE)
    (folder / "tasks.jsonl").write_text('{"agent": "one"}\n')
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ODRADEK_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "odradek.infra.app.cli", *arguments,
        cwd=folder,
        env={**kept, "ODRADEK_TOKEN_KEYS": KEY, "OMP_NUM_THREADS": "1", **variables},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode is not None
    text = errors.decode()
    assert "Traceback" not in text, text
    return process.returncode, text.strip().rpartition("\n")[2]


async def every(folder: Path, **variables: str) -> dict[str, tuple[int, str]]:
    """What each process says, two at a time."""
    places = asyncio.Semaphore(2)

    async def one(arguments: tuple[str, ...]) -> tuple[int, str]:
        async with places:
            return await run(folder, *arguments, **variables)

    answers = await asyncio.gather(*(one(arguments) for arguments in PROCESSES.values()))
    return dict(zip(PROCESSES, answers, strict=True))


@pytest.mark.slow
async def test_a_kafka_that_is_not_there(tmp_path):
    """Every process says where it looked and how to start one."""
    for verb, (code, line) in (
        await every(tmp_path, ODRADEK_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    ).items():
        assert (verb, 2) == (verb, code), line
        assert "no Kafka answers at 127.0.0.1:1" in line
        assert "odradek kafka start" in line


@pytest.mark.broker
@pytest.mark.slow
async def test_topics_that_are_not_there(tmp_path, bus):
    """Every process that would read or write them names the command that makes them."""
    answers = await every(
        tmp_path,
        ODRADEK_KAFKA_BOOTSTRAP_SERVERS=bus.bootstrap_servers,
        ODRADEK_TOPIC_PREFIX=bus.topic_prefix,
    )
    for verb, (code, line) in answers.items():
        assert (verb, 2) == (verb, code), line
        assert "odradek topics apply" in line, verb


@pytest.mark.broker
async def test_topics_that_lack_partitions(tmp_path, bus):
    """Topics of another installation are not used: ids depend on the number of partitions."""
    await ensure_topics(bus, rows())
    code, line = await run(
        tmp_path, "topics", "apply",
        ODRADEK_KAFKA_BOOTSTRAP_SERVERS=bus.bootstrap_servers,
        ODRADEK_TOPIC_PREFIX=bus.topic_prefix,
        ODRADEK_TOPIC_PARTITIONS=str(bus.topic_partitions + 1),
    )  # fmt: skip
    assert 2 == code
    assert "ODRADEK_TOPIC_PARTITIONS" in line


@pytest.mark.broker
async def test_a_port_in_use(tmp_path, bus):
    """The proxy names the port and the setting that chooses another."""
    await ensure_topics(bus, rows())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = await run(
            tmp_path, "proxy", "--port", str(port),
            ODRADEK_KAFKA_BOOTSTRAP_SERVERS=bus.bootstrap_servers,
            ODRADEK_TOPIC_PREFIX=bus.topic_prefix,
        )  # fmt: skip
    assert 2 == code
    assert str(port) in line
    assert "ODRADEK_PROXY_PORT" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("up",), "odradek init"),
        (("config",), "odradek init"),
        (("agent", "nowhere:play", "--name", "one"), "nowhere"),
        (("agent", "agent:nothing", "--name", "one"), "nothing"),
        (("agent", "agent:play", "--name", "a.b"), "a.b"),
        (("reward", "judge:nothing", "--component", "c"), "nothing"),
        (("replay", "--batches", "3", "--to", "again"), "FROM:TO"),
        (("tasks", "publish", "no-such-file"), "no-such-file"),
        (("token", "e", "--lifetime", "soon"), "--lifetime"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
async def test_arguments_that_mean_nothing(tmp_path, arguments, expected):
    """The line names what is wrong."""
    code, line = await run(tmp_path, *arguments, ODRADEK_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert 2 == code
    assert expected in line
