"""`odradek reward` as a process: it ends when it is told to, and says in a line what is wrong."""

import asyncio
import os
import signal
import sys
from collections import Counter

import pytest

from odradek.infra.bus import KafkaAppender, admin, ensure_topics, running, to_end
from odradek.schemas import codec
from odradek.schemas.events import Conversation, Reward
from odradek.schemas.topics import CONVERSATIONS, DLQ, REWARDS
from tests.support.suite.process_state import alive

pytestmark = pytest.mark.broker

REWARDS_PY = """
import asyncio, os, signal, subprocess, time
from pathlib import Path

import numpy as np


def plain(conversation):
    name = conversation.episode_id
    Path(f"asked-{name}").write_text(str(os.getpid()))
    print("thinking about", name)
    if name == "hang":
        time.sleep(3600)
    if name == "die":
        os._exit(9)
    if name == "none":
        return None
    if name == "nap" and not Path("again").exists():
        time.sleep(2.5)
    return np.float32(0.5)


def frail(conversation):
    # It ends of signals, as where a library has set its own handlers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return plain(conversation)


def wrong(conversation):
    # What it makes of a child's end is a number.
    sleeper = subprocess.Popen(["sleep", "0.5" if Path("again").exists() else "2.5"])
    plain(conversation) if Path("again").exists() else Path("asked-nap").write_text(str(os.getpid()))
    return 1.0 if sleeper.wait() == 0 else -1.0


async def stubborn(conversation):
    name = conversation.episode_id
    Path(f"asked-{name}").touch()
    while name == "hang":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    return 0.5


async def polite(conversation):
    Path(f"asked-{conversation.episode_id}").touch()
    if conversation.episode_id == "hang":
        await asyncio.sleep(3600)
    return 0.5
"""


@pytest.fixture
def bus(bus):
    return bus.model_copy(update={"topic_partitions": 1})


async def start(bus, folder, function, *more):
    (folder / "rewards.py").write_text(REWARDS_PY)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "odradek.infra.app.cli", "reward", function, "--component", "brief", *more,
        cwd=folder,
        env={
            **os.environ,
            "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
            "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def write(bus, *names):
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for name in names:
        one = Conversation(
            episode_id=name, task_id="t1", agent="hilo", sample=0, reward_components=("brief",)
        )
        await appender.append(CONVERSATIONS.name, key=name, value=codec.encode(one))
    await appender.aclose()


async def keys(bus, topic) -> Counter:
    return Counter([record.key async for record in to_end(bus, topic.name)])


def worker_of(folder, name) -> int | None:
    """Process id of the worker that was asked for a conversation, once it has written it down."""
    note = folder / f"asked-{name}"
    return int(note.read_text() or 0) or None if note.exists() else None


async def until(process, what):
    """Wait until something holds, or the process has ended."""
    async with asyncio.timeout(60):
        while not await what():
            assert process.returncode is None, (await process.communicate())[1].decode()
            await asyncio.sleep(0.05)


async def test_what_hangs_or_dies_is_one_error_and_sigterm_waits_for_nothing(bus, tmp_path):
    """Neighbours have their verdicts, what is judged is committed, no worker is left."""
    await write(bus, "hang", "die", "none", *(f"e{n}" for n in range(20)))
    process = await start(bus, tmp_path, "rewards:plain", "--concurrency", "2")

    async def judged():
        asked = worker_of(tmp_path, "hang")
        return asked and len(await keys(bus, REWARDS)) == 20 and len(await keys(bus, DLQ)) == 2

    await until(process, judged)
    worker = worker_of(tmp_path, "hang")
    assert alive(worker)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert 0 == process.returncode, errors.decode()
    assert not alive(worker)
    assert {f"e{n}": 1 for n in range(20)} == await keys(bus, REWARDS)
    assert {"die": 1, "none": 1} == await keys(bus, DLQ)
    async with running(admin(bus), bus) as client:
        (mark,) = (await client.list_consumer_group_offsets(bus.group("reward-brief"))).values()
    assert (0, "1;23;0") == (mark.offset, mark.metadata)
    text = errors.decode()
    assert "its worker ended with exit code 9" in text
    assert "what it returned is a NoneType, not a number" in text
    assert "thinking about e1" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("function", ["polite", "stubborn"])
async def test_an_async_function_that_hangs_holds_up_no_end(bus, tmp_path, function):
    """Also where it cannot be cancelled."""
    await write(bus, "hang", "e0")
    process = await start(bus, tmp_path, f"rewards:{function}")

    async def judged():
        return (tmp_path / "asked-hang").exists() and await keys(bus, REWARDS) == {"e0": 1}

    await until(process, judged)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert 0 == process.returncode, errors.decode()
    assert "Traceback" not in errors.decode()


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("rewards:plane", "did you mean 'plain'"),
        ("rewards:np", "rewards:np is not a function"),
        ("elsewhere:plain", "there is no module 'elsewhere'"),
        ("rewards", "not of the form module:function"),
        ("broken:f", "broken:f cannot be imported: SyntaxError"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(bus, tmp_path, function, why):
    """Before Kafka is asked for anything: there are no topics here."""
    (tmp_path / "broken.py").write_text("def f(:")
    process = await start(bus, tmp_path, function)
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    text = errors.decode()
    assert 2 == process.returncode, text
    assert text.startswith("odradek: ")
    assert why in text
    assert 1 == len(text.splitlines())


async def test_a_service_can_be_told_to_end_while_its_module_is_imported(bus, tmp_path):
    """Which may take minutes."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(3600)"
    )
    process = await start(bus, tmp_path, "slow:f")

    async def importing():
        return (tmp_path / "importing").exists()

    await until(process, importing)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert 0 == process.returncode, errors.decode()


async def everybody_hit(process, bus, tmp_path, order):
    """Signal a service and its worker, as whoever ends a control group does."""
    worker = worker_of(tmp_path, "nap")
    for who in order:
        if who == "service":
            process.send_signal(signal.SIGTERM)
        else:
            os.killpg(worker, signal.SIGTERM)
    async with asyncio.timeout(60):
        _, errors = await process.communicate()
    assert 0 == process.returncode, errors.decode()
    assert not alive(worker)


@pytest.mark.parametrize("function", ["plain", "frail", "wrong"])
@pytest.mark.parametrize(
    "order",
    [
        ("service", "worker"),
        pytest.param(("worker", "service"), marks=pytest.mark.chaos),  # ten seconds each
    ],
)
async def test_a_signal_for_everybody_costs_no_conversation(bus, tmp_path, function, order):
    """Another worker judges it, or the next service does, and no number is the signal's work."""
    await write(bus, "nap")
    process = await start(bus, tmp_path, f"rewards:{function}")

    async def asked():
        return worker_of(tmp_path, "nap")

    await until(process, asked)
    await everybody_hit(process, bus, tmp_path, order)
    if not await keys(bus, REWARDS):
        (tmp_path / "again").touch()
        successor = await start(bus, tmp_path, f"rewards:{function}")

        async def judged():
            return await keys(bus, REWARDS)

        await until(successor, judged)
        successor.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            _, errors = await successor.communicate()
        assert 0 == successor.returncode, errors.decode()
    assert {"nap": 1} == await keys(bus, REWARDS)
    assert {} == await keys(bus, DLQ)
    values = [codec.decode(one.value, Reward).value async for one in to_end(bus, REWARDS.name)]
    assert 0 < min(values)


@pytest.mark.parametrize("order", [("service", "worker"), ("worker", "service")])
async def test_a_signal_for_everybody_while_the_module_is_imported_ends_in_good_order(
    bus, tmp_path, order
):
    """It is not the module's fault."""
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "pathlib.Path('asked-nap').write_text(str(os.getpid()))\ntime.sleep(3600)"
    )
    process = await start(bus, tmp_path, "slow:f")

    async def importing():
        return worker_of(tmp_path, "nap")

    await until(process, importing)
    await everybody_hit(process, bus, tmp_path, order)
