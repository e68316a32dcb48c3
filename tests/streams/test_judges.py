"""Judges: a number, or an error that says why there is none."""

import asyncio
import contextlib
import functools
import sys

import pytest

from odradek.infra.errors import NoSuchName
from odradek.schemas.events import Conversation
from odradek.streams.errors import RewardFailed, RewardRefused
from odradek.streams.judges import judge
from odradek.streams.judges.judge import AsyncJudge, is_async, load
from tests.support.schemas.number_inputs import NO_NUMBERS, NOT_FINITE, NUMBERS, shown


def conversation(name: str = "e1", **more) -> Conversation:
    fields = {"task_id": "t1", "agent": "hilo", "sample": 0, "reward_components": ("brief",)} | more
    return Conversation(episode_id=name, **fields)


async def said(function, timeout_s: float = 5.0) -> float:
    return await AsyncJudge(function, timeout_s).judge(conversation(), b"")


class Broken:
    """What it returns breaks only when it is asked for its float."""

    def __float__(self):
        return {}["score"]


async def slow(_):
    await asyncio.sleep(60)


async def exits(_):
    sys.exit("no")


async def cancels_itself(_):
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("function", "value"),
    [(lambda _: 1, 1.0), (lambda _: True, 1.0), (lambda _: asyncio.sleep(0, 0.5), 0.5)],
)
async def test_what_is_asked_may_answer_at_once_or_later(function, value):
    """Whatever it returns must be a number."""
    assert value == await said(function)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: Broken(), "KeyError"),
        (exits, "SystemExit at test_judges.py:"),
        (cancels_itself, "it cancelled itself"),
        (slow, "took longer than 0.05 s"),
    ],
)
async def test_raising_is_an_error_and_not_a_zero(function, what):
    """So is no number, a number that is not finite, and taking too long."""
    with pytest.raises(RewardFailed, match=what):
        await said(function, 0.05 if function is slow else 5)


async def test_a_function_that_cannot_be_cancelled_is_given_up(monkeypatch):
    """It goes on, but its conversation has its error, and its place is free."""
    monkeypatch.setattr(judge, "CANCEL_S", 0.05)
    go = asyncio.Event()

    async def stubborn(_):
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
        raise ValueError

    judges = AsyncJudge(stubborn, 0.05)
    with pytest.raises(RewardFailed, match="took longer than"):
        await judges.judge(conversation(), b"")
    (verdict,) = judges.stuck
    go.set()
    await asyncio.wait({verdict})
    await asyncio.sleep(0)
    assert set() == judges.stuck


class Called:
    async def __call__(self, _):
        return 1.0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (slow, True),
        (functools.partial(slow, 1), True),
        (Called(), True),
        (Called().__call__, True),
        (Called, False),
        (lambda _: 1, False),
        (len, False),
    ],
    ids=["async", "partial", "callable", "method", "class", "lambda", "builtin"],
)
def test_async_is_what_is_declared_so(function, expected):
    """A function, a method, a partial, or an object that is called."""
    assert expected is is_async(function)


@pytest.mark.parametrize(("given", "value"), NUMBERS, ids=shown)
async def test_a_verdict_may_be_any_librarys_number(given, value):
    """numpy's, Decimal, or whatever has a float in it."""
    assert value == await said(lambda _: given)


@pytest.mark.parametrize("given", [*NO_NUMBERS, *NOT_FINITE], ids=shown)
async def test_a_verdict_that_is_no_number_is_an_error_event(given):
    """Text that reads as a number, too; the letter names the type and quotes nothing."""
    with pytest.raises(RewardFailed, match="what it returned is "):
        await said(lambda _: given)


@pytest.mark.parametrize("path", ["rewards", ":f", "no_such_module_of_ours:f", "json:nothing"])
def test_a_path_that_names_no_function_is_refused(path):
    """In one line."""
    with pytest.raises(NoSuchName):
        load(path)


def test_what_cannot_be_called_is_no_reward():
    """A constant has no opinion."""
    with pytest.raises(RewardRefused):
        load("math:pi")
