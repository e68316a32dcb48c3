"""A log that was written before the names of release 0.1.0 is refused by each process, at its start."""

import asyncio

import pytest
from aiokafka import TopicPartition

from odradek.infra.bus import consumer, ensure_topics, producer, require_topics, rows, running
from odradek.infra.errors import FormatRefused
from odradek.schemas import codec
from odradek.schemas.compatibility import Age, dated
from odradek.schemas.events import Batch, EpisodeOpened, Step, Task, Timeouts
from odradek.schemas.topics import (
    A2A_TASKS,
    BATCHES,
    CONVERSATIONS,
    DLQ,
    EPISODES,
    STEPS,
    TASKS,
    TURNS,
)
from tests.support.schemas.event_samples import SAMPLES

FORMER = {
    TASKS.name: b'{"type":"task","task_id":"t","agent":"hilo","timeouts":{"run_s":2.0}}',
    TURNS.name: b'{"type":"opened","episode_id":"e","task_id":"t","agent":"hilo","sample":0,'
    b'"group_size":4,"rewards":{"game":1.0}}',
    CONVERSATIONS.name: b'{"type":"conversation","episode_id":"e","task_id":"t","agent":"hilo",'
    b'"sample":0,"wanted":["game"]}',
    EPISODES.name: b'{"type":"expected","task_id":"t","agent":"hilo","group_size":4}',
    BATCHES.name: b'{"type":"batch","task_id":"t","agent":"hilo","group_size":4,"empty":"too_few"}',
    STEPS.name: b'{"type":"step","run":"main","incarnation":1,"step":0,"position":0,"resumed":"d"}',
}
"""What each topic held before."""


async def stage(bus, name, driver="kafka"):
    from odradek.streams.process import run_stage
    from odradek.streams.settings import StreamsSettings
    from odradek.streams.stages.assembler import ASSEMBLE
    from odradek.streams.stages.grouper import GROUP
    from odradek.streams.stages.intake import intake

    stages = {"assemble": ASSEMBLE, "group": GROUP, "intake": intake({})}
    await run_stage(bus, stages[name], StreamsSettings(driver=driver))


async def reward(bus):
    from odradek.streams.judges.named import NamedJudge
    from odradek.streams.reward_service import RewardService

    await RewardService(bus, NamedJudge("math:sqrt", 1), "brief").run()


async def dispatcher(bus):
    from odradek.agents.dispatch.dispatcher import run
    from odradek.agents.settings import DispatchSettings

    await run(DispatchSettings(), bus)


async def host(bus):
    from odradek.agents.host.host import run
    from odradek.agents.runners import load
    from odradek.agents.settings import AgentSettings

    await run(AgentSettings(name="hilo"), bus, load(None, "true", None))


async def proxy(bus):
    from odradek.proxy.process import serve
    from odradek.proxy.settings import ProxySettings

    await serve(ProxySettings(port=0), bus, ["k" * 32])


async def trainer(bus, folder):
    from odradek.trainer.process import run
    from odradek.trainer.settings import TrainerSettings

    settings = TrainerSettings(model=str(folder), output_dir=folder / "out")
    await asyncio.to_thread(run, settings, bus)


async def verifier(bus):
    from odradek.streams.verify.report import verify

    await verify(bus)


async def replayer(bus):
    from odradek.streams.replay import replay

    await replay(bus, "0:1", "rl.batches.again")


async def subscriber(bus):
    from odradek.infra.client import subscribe

    async for _ in subscribe(EPISODES.name, bus=bus):
        pass


async def up(bus, folder):
    from odradek.infra.app.project import load as project
    from odradek.infra.app.session.session import running as session

    (folder / "odradek.toml").write_text(
        f'[kafka]\nbootstrap_servers = "{bus.bootstrap_servers}"\n'
        f'topic_prefix = "{bus.topic_prefix}"\ntopic_partitions = 3\n'
        '[engine]\nmodel = "m"\n[[agents]]\nname = "hilo"\nrun = "a:b"\n'
    )
    async with session(project(folder, {}), str):
        pass


PROCESSES = {
    "intake": lambda bus, _: stage(bus, "intake"),
    "assembler": lambda bus, _: stage(bus, "assemble"),
    "assembler on Faust": lambda bus, _: stage(bus, "assemble", "faust"),
    "grouper": lambda bus, _: stage(bus, "group"),
    "reward service": lambda bus, _: reward(bus),
    "dispatcher": lambda bus, _: dispatcher(bus),
    "agent host": lambda bus, _: host(bus),
    "proxy": lambda bus, _: proxy(bus),
    "trainer": trainer,
    "verify": lambda bus, _: verifier(bus),
    "replay": lambda bus, _: replayer(bus),
    "subscribe": lambda bus, _: subscriber(bus),
    "odradek up": up,
    "odradek topics apply": lambda bus, _: ensure_topics(bus, rows(["hilo"])),
    "odradek tasks publish": lambda bus, _: require_topics(bus, [TASKS.name]),
}


async def write(bus, records):
    async with running(producer(bus), bus) as log:
        for topic, value in records:
            await log.send_and_wait(bus.topic(topic), value, key=b"k", partition=0)


@pytest.mark.broker
@pytest.mark.torch
@pytest.mark.parametrize("name", PROCESSES)
async def test_each_process_refuses_a_log_of_the_former_format_in_one_line(
    bus, tmp_path, name, monkeypatch
):
    """It names the topic, the record and the next step, and writes no dead letter."""
    monkeypatch.setenv("ODRADEK_TOKEN_KEYS", "k" * 64)
    await ensure_topics(bus, rows(["hilo"]))
    await write(bus, FORMER.items())
    with pytest.raises(FormatRefused) as caught:
        async with asyncio.timeout(60):
            await PROCESSES[name](bus, tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert "ODRADEK_TOPIC_PREFIX" in line
    assert "partition 0, offset 0" in line
    async with running(consumer(bus), bus) as reader:
        ends = await reader.end_offsets([TopicPartition(bus.topic(DLQ.name), n) for n in range(3)])
    assert {0} == set(ends.values())


@pytest.mark.broker
async def test_the_age_of_a_log_is_that_of_its_first_records(bus):
    """A dead letter may hold anything, and a record without a changed name says nothing."""
    await ensure_topics(bus, rows())
    tick, opened = codec.encode(SAMPLES["tick"]), codec.encode(SAMPLES["episode_opened"])
    await write(bus, [(DLQ.name, FORMER[TURNS.name]), (TURNS.name, tick), (TURNS.name, opened)])
    await require_topics(bus, [TURNS.name, DLQ.name])
    await write(bus, [(EPISODES.name, tick), (EPISODES.name, FORMER[EPISODES.name])])
    with pytest.raises(FormatRefused, match="offset 1: type expected is now group_opened"):
        await require_topics(bus, [EPISODES.name])


@pytest.mark.parametrize("value", FORMER.values())
def test_former_names_are_recognised(value):
    """Of each topic on which a name has changed."""
    assert Age.FORMER is dated(value, ()).age


@pytest.mark.parametrize("header", ["a2a-ending"])
def test_a_former_header_is_recognised(header):
    """Snapshots are the SDK's own bytes; only their headers are ours."""
    assert A2A_TASKS.compact
    assert Age.FORMER is dated(b"{}", ((header, b"failed"),)).age


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_no_event_of_today_looks_former(name):
    """Whatever its fields hold: names are only looked for where ours stand."""
    assert Age.FORMER is not dated(codec.encode(SAMPLES[name]), ()).age


@pytest.mark.parametrize(
    "event",
    [
        Task(task_id="t", agent="hilo", timeouts=Timeouts(attempt_s=5), sampling={"cut": 1}),
        EpisodeOpened(
            episode_id="e", task_id="t", agent="a", sample=0, group_size=1, item="opened"
        ),
        Batch(task_id="t", group_size=1, origin="empty"),
        Step(run="r", incarnation=1, step=1, position=1, metrics={"salt": 1.0}),
    ],
)
def test_words_of_a_user_are_no_names_of_ours(event):
    """Under a field that passes through, any key may stand."""
    assert Age.FORMER is not dated(codec.encode(event), ()).age


@pytest.mark.parametrize("value", [None, b"", b"[]", b"{", b"\xff", b'{"type":3}', b"[" * 5000])
def test_what_is_no_event_has_no_age(value):
    """It is a dead letter for another reason."""
    assert Age.UNKNOWN is dated(value, ()).age
