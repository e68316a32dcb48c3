"""A trainer chooses the rewards of which revision count, and its ledger says which did."""

import asyncio
import dataclasses

import msgspec
import pytest

from odradek.infra.app.history.steps import LogHistory
from odradek.infra.bus import KafkaAppender, looking_up
from odradek.schemas.events import Reward
from odradek.schemas.topics import REVISIONS, STEPS
from odradek.streams.history import CountSpan, Selection
from odradek.streams.replay import replay
from odradek.streams.verify.report import verify
from odradek.trainer.errors import BadSettings
from odradek.trainer.process import run
from tests.trainer.test_from_the_log import append, log_bus, publish, settings_of, told

__all__ = ["log_bus"]
pytestmark = [pytest.mark.broker, pytest.mark.torch]


def with_components(group):
    """A group whose episodes say how their rewards were made."""
    episodes = [
        (pointer, msgspec.structs.replace(
            episode, reward=pointer.reward, components={"reward": pointer.reward}
        ))
        for pointer, episode in group.episodes
    ]  # fmt: skip
    return dataclasses.replace(group, episodes=tuple(episodes))


async def late(bus, *rewards):
    appender = await KafkaAppender.connect(bus)
    for episode, value in rewards:
        reward = Reward(episode_id=episode, component="reward", value=value, source="person/ann")
        await append(appender, REVISIONS.name, episode, reward)
    await appender.aclose()


@pytest.fixture
def played(log_bus, groups):
    """Groups on the log; the rewards of the first two samples of each came out wrong."""
    differ = [with_components(group) for group in groups if not group.batch.zero_variance][:6]
    batches = asyncio.run(publish(log_bus, differ))
    rewards = [
        (pointer.episode_id, 5.0 + number)
        for batch in batches
        for number, pointer in enumerate(batch.episodes[:2])
    ]
    asyncio.run(late(log_bus, *rewards))
    return batches


def used(bus, name):
    return [use for step in told(bus, STEPS.name, run=name) for use in step.used]


def weights(bus, name):
    return [step.weights for step in told(bus, STEPS.name, run=name) if step.optimized][-1]


def test_each_revision_is_trained_on_as_it_is(log_bus, played, tiny, tmp_path):
    """The first rewards, all late ones, and those before an offset: and the ledger is verified."""
    for revision in ("first", "latest", "0", "1", "12"):
        settings = settings_of(
            tiny, tmp_path, f"r-{revision}", revision=revision, max_steps=2, policy=f"p-{revision}"
        )
        assert 2 == run(settings, log_bus)
    assert {0} == {use.revision for use in used(log_bus, "r-first")}
    assert {12} == {use.revision for use in used(log_bus, "r-latest")}
    assert [use.revision for use in used(log_bus, "r-1")] == [
        1 if use.offset == 0 else 0 for use in used(log_bus, "r-1")
    ]
    assert weights(log_bus, "r-first") == weights(log_bus, "r-0")
    assert weights(log_bus, "r-latest") == weights(log_bus, "r-12")
    assert 3 == len({weights(log_bus, f"r-{name}") for name in ("first", "1", "latest")})
    report = asyncio.run(verify(log_bus))
    assert [] == [line for line in report.problems if "another batch" in line]
    assert 12 == report.revisions["rewards"]


def test_a_late_reward_can_bring_an_equal_group_back(log_bus, groups, tiny, tmp_path):
    """Its samples were worth the same, so it taught nothing; now they are not."""
    equal = with_components(next(group for group in groups if group.batch.zero_variance))
    (batch,) = asyncio.run(publish(log_bus, [equal]))
    asyncio.run(late(log_bus, (batch.episodes[0].episode_id, 9.0)))
    settings = settings_of(tiny, tmp_path, rows_per_step=2, max_steps=1, revision="latest")
    assert 1 == run(settings, log_bus)
    assert [0] == [use.offset for use in used(log_bus, "run")]


def test_a_revision_that_is_not_there_is_refused(log_bus, played, tiny, tmp_path):
    """The line names the offsets that there are."""
    with pytest.raises(BadSettings, match="holds the offsets 0 to 12"):
        run(settings_of(tiny, tmp_path, revision="13"), log_bus)


def test_a_batch_that_was_used_in_part_keeps_its_rewards(log_bus, played, tiny, tmp_path):
    """Late rewards that come between two starts do not change the rest of it."""
    settings = settings_of(tiny, tmp_path, rows_per_step=4, max_steps=1, revision="latest")
    assert 1 == run(settings, log_bus)
    names = [pointer.episode_id for pointer in played[0].episodes]
    asyncio.run(late(log_bus, *((name, 1.0) for name in names)))  # now they would teach nothing
    settings = settings_of(tiny, tmp_path, rows_per_step=4, max_steps=3, revision="latest")
    assert 3 == run(settings, log_bus)
    first, second, third = used(log_bus, "run")[:3]
    assert [(0, 12), (0, 12)] == [(use.offset, use.revision) for use in (first, second)]
    assert first.digest == second.digest
    assert 1 == third.offset
    report = asyncio.run(verify(log_bus))
    assert ([], []) == (list(report.problems), list(report.duplicated))


def test_what_a_step_saw_has_the_rewards_that_it_used(log_bus, played, tiny, tmp_path):
    """`odradek show step` makes the same digests as the ledger, and a replay of steps as well."""

    async def seen():
        async with looking_up(log_bus) as lookup:
            return await LogHistory(lookup, "run").step(1)

    assert 1 == run(settings_of(tiny, tmp_path, max_steps=1, revision="3"), log_bus)
    view = asyncio.run(seen())
    uses = {use.offset: use for use in used(log_bus, "run")}
    assert () == view.remarks
    assert [uses[offset].digest for offset in sorted(uses)] == [b.digest for b in view.batches]
    assert [0, 1] == sorted(uses)
    rewards = [sample.reward for sample in view.batches[0].samples]
    assert [5.0, 6.0] == rewards[:2]
    done = asyncio.run(replay(log_bus, Selection(steps=CountSpan(1, 2), run="run"), "again"))
    assert [uses[offset].digest for offset in sorted(uses)] == list(done.digests)
