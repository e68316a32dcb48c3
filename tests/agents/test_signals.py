"""A signal that is for a host and all that belongs to it makes no run a crash of its agent."""

import asyncio

import pytest

from odradek.agents.attempt.outcome import RunnerEnded, judge_exit
from odradek.schemas.events import Outcome

CODES = [
    (-15, True), (-2, True), (-1, True), (143, True), (130, True), (129, True),
    (-9, False), (-11, False), (-6, False), (137, False), (139, False), (1, False), (75, False),
    (0, False), (255, False),
]  # fmt: skip
"""(exit code, whether somebody may have ended the program together with its host)."""


@pytest.mark.parametrize(("code", "signalled"), CODES)
def test_a_program_that_was_told_to_end_is_known(code, signalled):
    """By its signal, or by what a shell makes of it."""
    assert signalled is judge_exit(code, "").signalled


ENDS = [
    (lambda: RuntimeError("its model went away"), True),
    (lambda: RunnerEnded(judge_exit(1, "")), True),
    (lambda: RunnerEnded(judge_exit(-15, "")), True),
    (lambda: RunnerEnded(judge_exit(-15, "")), False),
    (lambda: RunnerEnded(judge_exit(143, "")), False),
]
"""(how the agent ends, whether it does so after its host heard of the end)."""


@pytest.mark.broker
@pytest.mark.parametrize(("error", "after"), ENDS)
async def test_a_run_that_fails_as_its_host_ends_is_played_again(stage, error, after):
    """Whoever heard the signal first; it is neither sealed nor given a failure's reward."""
    began, over = asyncio.Event(), asyncio.Event()

    async def play(rollout):
        began.set()
        if after:
            await over.wait()
        raise error()

    host = await stage.host(play, grace_s=5.0)
    await stage.send("m1")
    await began.wait()
    task = stage.hosts.pop(host)
    host.stop()
    over.set()
    await task
    assert [] == stage.proxy.seals
    (aborted,) = [e for e in await stage.story() if type(e).__name__ == "EpisodeAborted"]
    assert ("host_lost", True) == (aborted.reason, aborted.retry)


@pytest.mark.broker
async def test_a_program_that_ends_of_a_signal_alone_has_failed(stage):
    """Its host goes on, so it was its own doing."""

    async def play(rollout):
        raise RunnerEnded(judge_exit(-15, ""))

    await stage.host(play)
    await stage.send("m1")
    await stage.ended("m1")
    ((_, outcome, _),) = stage.proxy.seals
    assert Outcome.FAILED == outcome
