"""What is shown of a step is what the trainer trained on."""

import asyncio
import json
from uuid import uuid4

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner

from odradek.infra.app.cli.look import show
from odradek.infra.app.history.episodes import episode_view, task_view, turn_view, used_batch
from odradek.infra.app.history.sections import Note, sections_of
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.bus import BusSettings, KafkaAppender, admin, looking_up, running
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import (
    Batch,
    Completion,
    EpisodeOpened,
    EpisodeSealed,
    Exclusion,
    Task,
    Turn,
    VersionSpan,
)
from odradek.schemas.topics import BATCHES, EPISODES, TASKS, TURNS
from odradek.streams.errors import HistoryGone, HistoryUnknown
from odradek.trainer.settings import TrainerSettings
from tests.support.trainer.trained_log import TrainedLog, append, episode_of

pytestmark = pytest.mark.broker


@pytest.fixture
async def log(bus):
    """Forty groups, and a trainer that died twice."""
    made = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=10, max_staleness=3))
    await made.publish(40)
    await made.train(5)
    await made.train(4, since=3)
    await made.train(4)
    return made


async def test_a_step_is_shown_as_it_was_trained_on(bus, log):
    """Row by row: ids, masks, log probabilities, advantages, weights, staleness and places."""
    async with looking_up(bus) as lookup:
        past = LogHistory(lookup)
        for number, rows in log.steps.items():
            view = await past.step(number)
            assert () == view.remarks
            shown = [row for batch in view.batches for row in batch.rows if not row.refused]
            assert [row.episode_id for row in rows] == [one.episode_id for one in shown]
            for row, one in zip(rows, shown, strict=True):
                assert row.ids.tolist() == list(one.tokens.ids)
                assert row.mask.tolist() == [bool(value) for value in one.tokens.trained]
                assert row.logprobs[row.mask].tolist() == [
                    value
                    for value, on in zip(one.tokens.logprobs, one.tokens.trained, strict=True)
                    if on
                ]
                assert (row.advantage, row.weight, row.reward) == (
                    one.advantage, one.weight, one.reward,
                )  # fmt: skip
                assert (row.staleness, row.oldest, row.newest) == (
                    one.staleness, one.oldest, one.newest,
                )  # fmt: skip


async def test_what_a_step_passed_without_use_is_listed_with_its_reason(bus, log):
    """Groups that are equal, and rows that are stale: each at its place."""
    async with looking_up(bus) as lookup:
        past = LogHistory(lookup)
        views = [await past.step(number) for number in log.steps]
    counting = {entry.step: entry for entry in log.entries if entry.optimized}
    told = {
        (refusal.offset, refusal.reason) for entry in counting.values() for refusal in entry.refused
    }
    shown = {
        (int(one.at.rpartition("/")[2]), one.reason) for view in views for one in view.passed
    } | {
        (int(batch.at.rpartition("/")[2]), row.refused)
        for view in views
        for batch in view.batches
        for row in batch.rows
        if row.refused
    }
    assert {"zero_variance", "stale"} == {reason for _, reason in told}
    assert told == shown


async def test_rules_are_those_of_the_start_that_made_the_step(bus, log):
    """Whatever this environment says; and other rules than the run's are found out."""
    log.settings = TrainerSettings(model="m", rows_per_step=10, max_staleness=3, baseline="median")
    await log.publish(20, first=40)
    await log.train(1)
    newest = max(log.steps)
    async with looking_up(bus) as lookup:
        past = LogHistory(lookup)
        before, after = await past.step(newest - 1), await past.step(newest)
        assert "median" == after.settings["baseline"]
        assert "baseline" not in before.settings
        assert () == after.remarks
        shown = [row.advantage for batch in after.batches for row in batch.rows if not row.refused]
        assert [row.advantage for row in log.steps[newest]] == shown


async def test_a_step_that_is_not_there_is_named_with_the_last_one(bus, log):
    """And so is a run that nobody knows."""
    async with looking_up(bus) as lookup:
        with pytest.raises(HistoryUnknown, match="no step 99 of run 'main': its last one is"):
            await LogHistory(lookup).step(99)
        with pytest.raises(HistoryUnknown, match="--run"):
            await LogHistory(lookup, "nobody").step(1)


async def test_an_episode_that_retention_has_deleted_is_named_in_a_step(bus, log):
    """Its rows would shift those behind them, so none is shown as if it were all."""
    pointer = log.offset_of[1].batch.episodes[0]
    on = TopicPartition(bus.topic(EPISODES.name), pointer.partition)
    async with running(admin(bus), bus) as client:
        await client.delete_records({on: RecordsToDelete(pointer.offset + 1)})
    async with looking_up(bus) as lookup:
        with pytest.raises(HistoryGone, match=r"episode e-t\d+-\d is gone"):
            await LogHistory(lookup).step(1)


async def test_a_batch_an_episode_and_a_task_lead_to_each_other(bus, log):
    """By name or by place; each says which steps used it."""
    appender = await KafkaAppender.connect(bus)
    at = await append(appender, TASKS.name, "t3", Task(task_id="t3", agent="hilo", group_size=4))
    await appender.aclose()
    group = next(one for one in log.offset_of.values() if one.batch.task_id == "t3")
    async with looking_up(bus) as lookup:
        past = LogHistory(lookup)
        batch = await used_batch(past, str(group.offset))
        used = {
            number: sum(row.task_id == "t3" for row in rows) for number, rows in log.steps.items()
        }
        assert {n: rows for n, rows in used.items() if rows} == {
            use.step: use.rows for use in batch.used
        }
        assert batch == await used_batch(past, batch.batch.at)
        task = await task_view(past, "t3")
        assert (f"{TASKS.name}/{at.partition}/{at.offset}", batch) == (task.at, task.batch)
        assert task == await task_view(past, task.at)
        for sample in batch.batch.samples:
            episode = await episode_view(past, sample.at)
            assert (sample.episode_id, batch.batch.at, batch.used) == (
                episode.episode["episode_id"], episode.batch_at, episode.used,
            )  # fmt: skip
            assert episode == await episode_view(past, sample.episode_id)
            rows = [row for row in batch.batch.rows if row.episode_id == sample.episode_id]
            assert rows == list(episode.rows)


async def test_an_excluded_episode_and_its_turns_are_found(bus, log):
    """No batch points at it: its group's partition, and its story, have it."""
    episode = msgspec.structs.replace(episode_of(0, "t77", 1, 1), opened_at=0.0)
    name = episode.episode_id
    turn = Turn(
        episode_id=name, turn_id="w-9", writer="w", seq=0,
        completion=Completion(ids=pack_ids([5, 6]), logprobs=pack_floats([-0.5, -1.0])),
        versions=(VersionSpan(3, 0, 2),),
    )  # fmt: skip
    opened = EpisodeOpened(
        episode_id=name, task_id="t77", agent="hilo", sample=1, group_size=4,
    )  # fmt: skip
    appender = await KafkaAppender.connect(bus)
    await append(appender, TURNS.name, name, opened)
    at = await append(appender, TURNS.name, name, turn)
    await append(appender, TURNS.name, name, EpisodeSealed(episode_id=name, n_turns=1))
    stands = await append(appender, EPISODES.name, "t77", episode)
    excluded = Exclusion(sample=1, reason="missing", episode_id=name)
    await append(
        appender, BATCHES.name, "t77", Batch(task_id="t77", group_size=4, exclusions=(excluded,))
    )
    await appender.aclose()
    async with looking_up(bus) as lookup:
        past = LogHistory(lookup)
        view = await episode_view(past, name)
        assert f"{EPISODES.name}/{stands.partition}/{stands.offset}" == view.at
        assert [f"{TURNS.name}/{at.partition}/{at.offset}"] == [one["at"] for one in view.turns]
        found = await turn_view(past, "w-9")
        assert found == await turn_view(past, view.turns[0]["at"])
        assert ((5, 6), (-0.5, -1.0), (3, 3)) == (
            found.tokens.ids, found.tokens.logprobs, found.tokens.versions,
        )  # fmt: skip
        for unknown in ("nobody", f"{EPISODES.name}/0/9999", "nowhere/0/0"):
            with pytest.raises(HistoryUnknown, match=r"no episode|holds no record|there is no"):
                await episode_view(past, unknown)


def test_the_verb_prints_text_and_json(broker, monkeypatch, tmp_path):
    """Tokens that are trained on are in brackets where there are no colours."""
    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.")
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)
    log = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=4))

    async def prepare():
        await log.publish(4)
        await log.train(1)

    asyncio.run(prepare())

    def call(*words):
        return CliRunner().invoke(show.command, words, catch_exceptions=False)

    view = json.loads(call("step", "1", "--json").stdout)
    text = call("step", "1").stdout
    row = log.steps[1][0]
    assert row.ids.tolist() == view["batches"][0]["rows"][0]["tokens"]["ids"]
    assert f"at                    {view['at']}" in text
    page = tmp_path / "step.html"
    assert f"{page}: step 1 of run main (counts)\n" == call("step", "1", "--html", str(page)).stdout
    assert all(place in page.read_text() for place in (view["at"], view["batches"][0]["at"]))
    first = int(row.mask.argmax())
    assert f"{row.ids[first - 1]} [{row.ids[first]} " in text
    for name in ("0", "rl.batches.v1/0/0"):
        assert "used by step 1" in call("batch", name).stdout
    assert "task" in call("task", "t0").stdout
    assert "hilo" in call("episode", "e-t0-0").stdout


async def test_a_row_that_was_drawn_again_says_so_with_its_importance(bus):
    """In the view, and in its line."""
    log = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=4))
    await log.publish(2)
    batch = log.offset_of[0].batch
    pointers = tuple(msgspec.structs.replace(one, weight=0.25, uses=2) for one in batch.episodes)
    drawn = msgspec.structs.replace(batch, episodes=pointers, origin="rl.batches.v1/0/0")
    appender = await KafkaAppender.connect(bus)
    at = await append(appender, BATCHES.name, batch.task_id, drawn)
    await appender.aclose()
    async with looking_up(bus) as lookup:
        fresh = (await used_batch(LogHistory(lookup), "0")).batch
        view = await used_batch(LogHistory(lookup), str(at.offset))
    assert {(False, 1.0)} == {(row.replayed, row.importance) for row in fresh.rows}
    assert {(True, 0.25)} == {(row.replayed, row.importance) for row in view.batch.rows}
    lines = [one.text for one in sections_of(view) if isinstance(one, Note)]
    assert len(view.batch.rows) == sum("replayed · importance 0.25" in line for line in lines)
