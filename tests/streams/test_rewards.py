"""Reward services: a verdict for who asks, an error event for a function that raises."""

import asyncio

import pytest
from numbered import NO_NUMBERS, NOT_FINITE, NUMBERS

from odradek.infra.bus import KafkaAppender, ensure_topics
from odradek.infra.errors import NoSuchName
from odradek.schemas import codec
from odradek.schemas.events import Conversation, Outcome, Reward
from odradek.schemas.topics import CONVERSATIONS, DLQ, REWARDS
from odradek.streams.errors import RewardFailed, RewardRefused
from odradek.streams.reading import to_end
from odradek.streams.rewards import RewardService, judge, load


def conversation(name: str = "e1", **more) -> Conversation:
    fields = {"task_id": "t1", "agent": "hilo", "sample": 0, "wanted": ("brief",)} | more
    return Conversation(episode_id=name, **fields)


class Broken:
    """What it returns breaks only when it is asked for its float."""

    def __float__(self):
        return {}["score"]


async def slow(_):
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("function", "value"),
    [(lambda _: 1, 1.0), (lambda _: True, 1.0), (lambda _: asyncio.sleep(0, 0.5), 0.5)],
)
async def test_a_function_may_be_sync_or_async(function, value):
    """Whatever it returns must be a number."""
    assert value == await judge(function, conversation(), 5)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: Broken(), "KeyError"),
        (slow, "TimeoutError"),
    ],
)
async def test_raising_is_an_error_and_not_a_zero(function, what):
    """So is no number, a number that is not finite, and taking too long."""
    with pytest.raises(RewardFailed, match=what):
        await judge(function, conversation(), 0.05 if function is slow else 5)


@pytest.mark.parametrize(("given", "value"), NUMBERS, ids=repr)
async def test_a_verdict_may_be_any_librarys_number(given, value):
    """numpy's, Decimal, or whatever has a float in it."""
    assert value == await judge(lambda _: given, conversation(), 5)


@pytest.mark.parametrize("given", [*NO_NUMBERS, *NOT_FINITE], ids=lambda given: repr(given)[:20])
async def test_a_verdict_that_is_no_number_is_an_error_event(given):
    """Text that reads as a number, too; the letter names the type and quotes nothing."""
    with pytest.raises(RewardFailed, match="what it returned is "):
        await judge(lambda _: given, conversation(), 5)


@pytest.mark.parametrize("path", ["rewards", ":f", "no_such_module_of_ours:f", "json:nothing"])
def test_a_path_that_names_no_function_is_refused(path):
    """In one line."""
    with pytest.raises(NoSuchName):
        load(path)


def test_what_cannot_be_called_is_no_reward():
    """A constant has no opinion."""
    with pytest.raises(RewardRefused):
        load("math:pi")


@pytest.mark.broker
async def test_who_asked_is_judged_once_and_failures_are_dead_letters(bus):
    """Only completed conversations that want the component; ids are deterministic."""

    def brief(told: Conversation) -> float:
        if told.episode_id == "bad":
            raise ValueError("cannot judge")
        return 0.5

    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for told in (
        conversation("good"),
        conversation("bad"),
        conversation("unasked", wanted=("game",)),
        conversation("failed", outcome=Outcome.FAILED),
        conversation("foreign", agent="other"),
    ):
        await appender.append(CONVERSATIONS.name, key=told.episode_id, value=codec.encode(told))
    service = RewardService(bus, brief, "brief", agent="hilo")
    task = asyncio.create_task(service.run())
    letters = []
    rewards = []
    while not letters or not rewards:
        letters = [one async for one in to_end(bus, DLQ.name)]
        rewards = [one async for one in to_end(bus, REWARDS.name)]
    service.stop()
    await task
    await appender.aclose()
    (record,) = rewards
    assert (
        Reward(episode_id="good", component="brief", value=0.5, source="/reward/brief")
    ) == codec.decode(record.value, Reward)
    assert "good/reward/brief" == codec.header(record.headers, "ce_id")
    (letter,) = letters
    assert "reward_failed" == codec.header(letter.headers, "dlq-reason")
    assert "bad" == letter.key
