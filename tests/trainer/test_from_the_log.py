"""The trainer on a real log: pointers, refusals, resuming, replaying, a restarted engine."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections import Counter
from uuid import uuid4

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from odradek.infra.app.cli import explain
from odradek.infra.bus import BusSettings, KafkaAppender, admin, ensure_topics, rows, running
from odradek.infra.client import subscribe
from odradek.infra.errors import TopicMissing
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.events import GroupOpened, Pointer, Step
from odradek.schemas.topics import BATCHES, EPISODES, POLICIES, STEPS
from odradek.streams.history import CountSpan, Selection
from odradek.streams.replay import replay
from odradek.streams.verify.findings import Findings
from odradek.streams.verify.trainer_runs import TrainerRuns
from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.announcer_kafka import KafkaAnnouncer
from odradek.trainer.engine.policies import newest_policy
from odradek.trainer.errors import BadSettings, NonFiniteSteps, PolicyTaken, PositionGone
from odradek.trainer.feed.readers import batch_reader as batches_of_the_log
from odradek.trainer.feed.readers.batch_reader import LogGroups
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.process import run
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer
from tests.support.trainer.nan_gradients import spoil

pytestmark = [pytest.mark.broker, pytest.mark.torch]


@pytest.fixture
def log_bus(broker):
    """A bus of this test's own, with its topics."""
    bus = BusSettings(
        bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.", topic_partitions=2
    )
    asyncio.run(ensure_topics(bus, rows()))
    return bus


async def append(appender, topic, key, event):
    return await appender.append(
        topic, key=key, value=codec.encode(event),
        headers=codec.headers(event, source="/test", subject=key, event_id=uuid4().hex),
    )  # fmt: skip


async def publish(bus, groups, *, spoil=None, topic=BATCHES.name):
    """Groups onto the log: episodes as the assembler, batches as the grouper would."""
    appender = await KafkaAppender.connect(bus)
    batches = []
    for group in groups:
        task = group.batch.task_id
        await append(appender, EPISODES.name, task, GroupOpened(task_id=task, group_size=8))
        pointers = []
        for pointer, episode in group.episodes:
            at = await append(appender, EPISODES.name, task, episode)
            pointers.append(
                msgspec.structs.replace(
                    pointer,
                    partition=at.partition,
                    offset=at.offset,
                    digest=codec.digest(codec.encode(episode)),
                )
            )
        batches.append(msgspec.structs.replace(group.batch, episodes=tuple(pointers)))
    if spoil:
        batches = spoil(batches)
    for batch in batches:
        await append(appender, topic, batch.task_id, batch)
    await appender.aclose()
    return batches


def told(bus, topic, **where):
    async def read():
        return [
            event
            async for event in subscribe(topic, since="beginning", follow=False, bus=bus,
                                         where=where)
        ]  # fmt: skip

    return asyncio.run(read())


def settings_of(tiny, tmp_path, name="run", **more):
    return TrainerSettings(
        **{
            "model": str(tiny), "output_dir": tmp_path / name, "device": "cpu", "run": name,
            "learning_rate": 2e-3, "rows_per_step": 16, "micro_tokens": 300, "max_staleness": 1000,
            "until_end": True,
        } | more
    )  # fmt: skip


def groups_from(bus, offset=0, topic=BATCHES.name):
    thread = LoopThread()
    try:
        source = LogGroups(thread, bus, topic, ends=True)
        source.open(offset)
        found = []
        while not source.ended():
            if group := source.next(0.2):
                found.append(group)
        source.close()
        return found
    finally:
        thread.close()


def test_pointers_lead_to_the_rows_that_were_written(log_bus, groups):
    """Read back in the order of batches, whatever the order of episodes; twice the same."""
    asyncio.run(publish(log_bus, groups[:6], spoil=lambda batches: batches[::-1]))
    found = groups_from(log_bus)
    assert [f"t{n}" for n in (5, 4, 3, 2, 1, 0)] == [group.batch.task_id for group in found]
    for one, two in zip(found, groups[5::-1], strict=True):
        if one.batch.zero_variance:
            continue
        assert [r.ids.tolist() for r in rows_of(two)] == [r.ids.tolist() for r in rows_of(one)]
        assert [r.advantage for r in rows_of(two)] == [r.advantage for r in rows_of(one)]
    again = groups_from(log_bus, offset=3)
    assert [group.offset for group in found[3:]] == [group.offset for group in again]


def test_pointers_that_lie_are_refused_and_the_others_are_used(log_bus, groups):
    """Another digest, no record there, a GroupOpened there, an unreadable batch: each has a reason."""
    varied = [group for group in groups if not group.batch.zero_variance][:2]

    def spoil(batches):
        first, second = batches
        wrong: list[Pointer] = list(first.episodes)
        wrong[0] = msgspec.structs.replace(wrong[0], digest="0" * 64)
        wrong[1] = msgspec.structs.replace(wrong[1], offset=wrong[1].offset + 10_000)
        wrong[2] = msgspec.structs.replace(wrong[2], offset=0, digest=wrong[2].digest)
        wrong[3] = msgspec.structs.replace(wrong[3], partition=77)
        return [msgspec.structs.replace(first, episodes=tuple(wrong)), second]

    from odradek.trainer.feed.readers import episode_reader

    patience, episode_reader.LATEST_S = episode_reader.LATEST_S, 0.5
    try:
        asyncio.run(publish(log_bus, varied, spoil=spoil))
        first, second = groups_from(log_bus)
    finally:
        episode_reader.LATEST_S = patience
    assert {"wrong_digest", "missing_record"} == {r.reason for r in first.refused}
    assert 4 == len(first.refused) == len(first.episodes)
    assert 8 == len(second.episodes)


@pytest.mark.parametrize("how", ["deleted", "overtaken"])
def test_a_topic_that_goes_away_under_the_reader_is_a_typed_error(
    log_bus, groups, how, monkeypatch
):
    """Deleted, or overtaken by retention: one line that says what to do, and nothing is skipped."""
    monkeypatch.setattr(batches_of_the_log, "LOOK_EVERY_S", 0.0)
    asyncio.run(publish(log_bus, groups[:3]))
    thread = LoopThread()
    source = LogGroups(thread, log_bus, BATCHES.name, ends=False)
    kind, says = {
        "deleted": (TopicMissing, "was deleted"),
        "overtaken": (PositionGone, "overtaken"),
    }[how]
    try:
        source.open(1)
        asyncio.run(take_away(log_bus, how))
        source._reader.seek(source._on, 1)  # not read ahead of what is taken away
        with pytest.raises(kind, match=says):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                source.next(0.2)
    finally:
        source.close()
        thread.close()


async def take_away(bus, how):
    """Delete the topic of batches, or all that stands on it."""
    topic = bus.topic(BATCHES.name)
    async with running(admin(bus), bus) as client:
        if how == "deleted":
            await client.delete_topics([topic])
        else:
            on = TopicPartition(topic, 0)
            await client.delete_records({on: RecordsToDelete(before_offset=3)})


def test_a_run_that_is_stopped_and_started_again_ends_as_if_it_had_not_been(
    log_bus, groups, tiny, tmp_path
):
    """Same weights, versions never used twice, every entry in the ledger once."""
    asyncio.run(publish(log_bus, groups))
    steps = run(settings_of(tiny, tmp_path, "whole", max_steps=5, policy="a"), log_bus)
    assert 5 == steps
    run(settings_of(tiny, tmp_path, "cut", max_steps=2, policy="b"), log_bus)
    run(settings_of(tiny, tmp_path, "cut", max_steps=5, policy="b"), log_bus)
    whole = [s for s in told(log_bus, STEPS.name, run="whole") if s.optimized]
    cut = [s for s in told(log_bus, STEPS.name, run="cut") if s.optimized]
    assert [s.used for s in whole] == [s.used for s in cut]
    assert whole[-1].weights == cut[-1].weights != ""
    assert [1, 1, 2, 2, 2] == [s.incarnation for s in cut]
    versions = [s.version for s in told(log_bus, STEPS.name, run="cut")]
    assert versions == sorted(versions)
    assert 7 == asyncio.run(newest_policy(log_bus, "b")).version  # 1 2 3, then 4 5 6 7
    assert told(log_bus, POLICIES.name, name="a")[-1].digest == whole[-1].weights


@pytest.mark.parametrize(
    "selection",
    [Selection(offsets=CountSpan()), Selection(steps=CountSpan(1, None))],
    ids=["all batches", "all steps"],
)
def test_a_replay_of_the_same_batches_ends_with_the_same_weights(
    log_bus, groups, tiny, tmp_path, selection
):
    """The batches again on another topic, a fresh trainer: equal digests, equal weights."""
    asyncio.run(publish(log_bus, groups[:20]))
    run(settings_of(tiny, tmp_path, "main", max_steps=1000, max_staleness=2), log_bus)
    replayed = asyncio.run(replay(log_bus, selection, "again"))
    run(
        settings_of(tiny, tmp_path, "again", max_steps=1000, max_staleness=2,
                    batches_topic="again", replay_of="main"),
        log_bus,
    )  # fmt: skip
    first = [s for s in told(log_bus, STEPS.name, run="main") if s.optimized]
    second = [s for s in told(log_bus, STEPS.name, run="again") if s.optimized]
    assert first
    assert [[u.digest for u in s.used] for s in first] == [
        [u.digest for u in s.used] for s in second
    ]
    assert {u.digest for s in first for u in s.used} <= {*replayed.digests}
    assert [s.weights for s in first] == [s.weights for s in second]
    assert told(log_bus, POLICIES.name, name="policy")[-1].run == "main"
    with pytest.raises(BadSettings, match="no run 'nobody'"):
        run(settings_of(tiny, tmp_path, "x", batches_topic="again", replay_of="nobody"), log_bus)


def test_sigterm_ends_a_waiting_trainer_cleanly(log_bus, groups, tiny, tmp_path):
    """Saved, told, returned: nothing is killed in the middle; idle batches are told as passed."""
    equal = [group for group in groups if group.batch.zero_variance]
    asyncio.run(publish(log_bus, groups[:4] + equal[:2]))
    settings = settings_of(tiny, tmp_path, until_end=False, max_steps=1000)

    def stop_when_idle():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            seen[:] = told(log_bus, STEPS.name, run="run")
            if seen and seen[-1].position == 4 + len(equal[:2]):
                break
        os.kill(os.getpid(), signal.SIGTERM)

    seen = []
    watcher = threading.Thread(target=stop_when_idle)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    watcher.start()
    try:
        steps = run(settings, log_bus)
    finally:
        watcher.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert steps >= 1
    assert 4 + len(equal[:2]) == seen[-1].position
    assert steps == checkpoint.position_of(checkpoint.newest(settings.output_dir))["step"]


def test_a_run_whose_steps_come_to_no_number_ends_and_the_next_start_goes_on(
    log_bus, groups, tiny, tmp_path, monkeypatch
):
    """Three in a row end it in one line; behind them the run goes on, and its ledger closes."""
    asyncio.run(publish(log_bus, groups))
    settings = settings_of(tiny, tmp_path, "run", max_steps=6)
    begin = LogTrainer.__init__

    def spoiled(self, *args):
        begin(self, *args)
        spoil(self, *spoil_steps)

    monkeypatch.setattr(LogTrainer, "__init__", spoiled)
    for spoil_steps, last in (((2, 3, 4), 4), ((5,), 5)):
        with pytest.raises(NonFiniteSteps, match=f"last of them step {last}") as ended:
            run(settings, log_bus)
        assert [str(ended.value)] == [explain(ended.value)] == str(ended.value).splitlines()
    spoil_steps = ()
    assert 6 == run(settings, log_bus)
    steps = told(log_bus, STEPS.name, run="run")
    assert [1, 6] == [step.step for step in steps if step.optimized]
    assert [2, 3, 4, 5] == [step.step for step in steps if step.skipped]
    found = Findings()
    trained = TrainerRuns(found)
    for offset, step in enumerate(steps):
        trained.step(step, offset)
    for offset, batch in enumerate(told(log_bus, BATCHES.name)):
        trained.batch(BATCHES.name, offset, batch)
    counts = Counter(row.episode_id for group in groups for row in rows_of(group))
    (table,) = trained.check(lambda pointer: counts[pointer.episode_id])
    assert found.none, found
    assert (6, 4, 3, 32) == tuple(
        table[name] for name in ("steps", "steps_skipped", "starts", "rows_used")
    )
    assert 4 * 16 == table["refused"]["non_finite"]


def test_a_folder_of_another_run_or_log_is_one_clear_line(log_bus, groups, tiny, tmp_path):
    """Nothing is overwritten, nothing skipped."""
    asyncio.run(publish(log_bus, groups[:8]))
    run(settings_of(tiny, tmp_path, "one", max_steps=1), log_bus)
    with pytest.raises(BadSettings, match="holds run 'one'"):
        run(settings_of(tiny, tmp_path, "one", run="two"), log_bus)
    with pytest.raises(BadSettings, match="another log"):
        groups_from(log_bus, offset=999)
    with pytest.raises(BadSettings, match="no model is named"):
        run(TrainerSettings(), log_bus)


async def test_an_engine_begins_with_the_newest_policy_and_follows_it(broker, tiny, tmp_path):
    """A restarted engine serves what the trainer announced, not the folder it was started from."""
    import aiohttp
    from safetensors.torch import load_file

    from odradek.schemas.events import Policy
    from odradek.trainer.commit.durable_files import sha256_of
    from odradek.trainer.engine.process import serve
    from odradek.trainer.engine.settings import EngineSettings
    from odradek.trainer.weights.directory import DirectoryTransfer
    from odradek.trainer.weights.engines import Engines

    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.",
                      topic_partitions=1)  # fmt: skip
    await ensure_topics(bus, rows())
    appender = await KafkaAppender.connect(bus)
    transfer = DirectoryTransfer(tmp_path / "w", Engines([]), config=None, keep=9)

    async def announce(version):
        transfer.version = version
        transfer.send_weights(load_file(tiny / "model.safetensors").items())
        digest = sha256_of(transfer.folder / "model.safetensors")
        policy = Policy(name="p", version=version, uri=transfer.folder.as_uri(), digest=digest)
        await append(appender, POLICIES.name, "p", policy)

    await announce(3)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    serving = asyncio.create_task(
        serve(EngineSettings(model=str(tiny), port=port, policy="p"), bus)
    )
    body = {"messages": [{"role": "user", "content": "1-3?"}], "max_tokens": 1,
            "return_weight_versions": True}  # fmt: skip

    async def version(http):
        try:
            async with http.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=body
            ) as answer:
                return (await answer.json())["choices"][0]["weight_versions"][0]["version"]
        except aiohttp.ClientConnectionError:
            return None

    async def until(http, wanted):
        async with asyncio.timeout(60):
            while (seen := await version(http)) != wanted:
                assert seen in {None, wanted - 1}
                await asyncio.sleep(0.05)

    try:
        async with aiohttp.ClientSession() as http:
            await until(http, 3)
            await announce(4)
            await until(http, 4)
    finally:
        await appender.aclose()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def test_a_trainer_beside_another_learns_what_it_learns_alone(log_bus, tiny, tmp_path, groups):
    """As the only trainer of another log; its rows are as old as the other's ledger says."""
    other_bus = log_bus.model_copy(update={"topic_prefix": f"{log_bus.topic_prefix}alone."})
    asyncio.run(ensure_topics(other_bus, rows()))
    for bus in (log_bus, other_bus):
        asyncio.run(publish(bus, groups[:8]))
    more = {"max_steps": 2, "lora_rank": 2, "max_staleness": 3}
    first = settings_of(tiny, tmp_path, "first", **more)
    alone = settings_of(tiny, tmp_path, "alone", **more, seed=3)
    second = settings_of(tiny, tmp_path, "second", **more, seed=3, sampled_by="first")
    assert 2 == run(first, log_bus)
    assert [2, 2] == [run(second, log_bus), run(alone, other_bus)]
    steps = {name: told(log_bus, STEPS.name, run=name) for name in ("first", "second")}
    steps["alone"] = told(other_bus, STEPS.name, run="alone")
    assert steps["alone"][-1].weights == steps["second"][-1].weights != steps["first"][-1].weights
    assert [s.used for s in steps["alone"]] == [s.used for s in steps["second"]]
    assert {"first"} == {entry.sampled_by for entry in steps["second"]}
    assert {"policy", "policy.second"} == {policy.name for policy in told(log_bus, POLICIES.name)}
    assert {"lora"} == {policy.format for policy in told(log_bus, POLICIES.name)}


def test_two_trainers_that_count_one_policys_versions_are_found_out(log_bus):
    """The one that started first ends before an engine gets the number; alone, it reads nothing."""
    thread = LoopThread()
    older, newer = KafkaAnnouncer(thread, log_bus), KafkaAnnouncer(thread, log_bus)

    def taken(version, run):
        return Step(run=run, incarnation=1, step=version, position=0, version=version, policy="p")

    try:
        for version in (1, 2, 3):
            older.step(taken(version, "a"))
        assert older._tail is None
        newer.step(taken(4, "b"))
        with pytest.raises(
            PolicyTaken, match=r"run 'b', start 1, took version 4\. One policy has one trainer"
        ):
            older.step(taken(4, "a"))
    finally:
        older.close()
        newer.close()
        thread.close()
