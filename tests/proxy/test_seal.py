"""Sealing an episode: EpisodeSealed stands behind every turn, once, and nothing follows."""

import asyncio
import json

import pytest
from openai import ConflictError

from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy.episodes.episode import EpisodePhase
from odradek.proxy.seal import MAX_ERROR
from odradek.schemas.events import EpisodeSealed, Outcome
from odradek.schemas.http.seal import SealRequest

from .conftest import KEY

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


async def test_a_seal_counts_the_turns_and_refuses_what_follows(bench):
    """409 in OpenAI's shape; no turn behind EpisodeSealed."""
    await bench.ask("one")
    await bench.ask("two")
    status, answer = await bench.seal(outcome="failed", error="it gave up")
    assert (200, {"writer": bench.proxy.writer, "n_turns": 2, "outcome": "failed"}) == (
        status,
        answer,
    )
    with pytest.raises(ConflictError):
        await bench.ask("three")
    last = bench.events()[-1]
    assert isinstance(last, EpisodeSealed)
    assert (2, Outcome.FAILED, "it gave up") == (last.n_turns, last.outcome, last.error)


async def test_a_second_seal_says_what_the_first_one_wrote(bench):
    """Also when both come at once, and when the second asks for another outcome."""
    await bench.ask()
    first, second = await asyncio.gather(bench.seal(outcome="completed"), bench.seal())
    third = await bench.seal(outcome="failed")
    assert first == second == third
    assert len(bench.sealed()) == 1


async def test_two_seals_at_once_write_one_end(bench):
    """The second waits for the first, whatever it asks for, and is told the same."""
    asked = (SealRequest(), SealRequest(Outcome.FAILED))
    story = bench.proxy.episodes.of("e1")
    async with story.lock:
        seals = [asyncio.create_task(bench.proxy.seals.seal("e1", one)) for one in asked]
        await bench.until(lambda: story.stage is EpisodePhase.SEALING)
    first, second = await asyncio.gather(*seals)
    assert (Outcome.COMPLETED, first) == (first.outcome, second)
    assert len(bench.sealed()) == 1


async def test_an_episode_without_calls_can_be_sealed(bench):
    """An agent that never called a model has an end as well."""
    assert (await bench.seal())[1]["n_turns"] == 0
    assert len(bench.sealed()) == 1


async def test_a_seal_waits_for_calls_in_flight(bench, engine):
    """What finishes in time is an ordinary turn, before EpisodeSealed; meanwhile new calls are refused."""
    engine.gate.clear()
    asking = asyncio.create_task(bench.ask())
    await engine.entered.wait()
    sealing = asyncio.create_task(bench.seal())
    await bench.until(lambda: [s.stage.value for s in bench.proxy.episodes] == ["sealing"])
    with pytest.raises(ConflictError):
        await bench.ask("late")
    engine.gate.set()
    await asking
    assert (await sealing)[1]["n_turns"] == 1
    assert not bench.turns()[0].error
    assert isinstance(bench.events()[-1], EpisodeSealed)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_outlasts_the_wait_is_recorded_as_an_error(make, engine, stream):
    """The agent gets 409 (or an error event), the turn says why, EpisodeSealed stands behind it."""
    engine.gate.clear()
    async with make(seal_wait_s=0.05) as bench:
        asking = asyncio.create_task(
            bench.post("/e/e1/v1/chat/completions", {**BODY, "stream": stream}, token=bench.token())
        )
        await engine.entered.wait()
        status, answer = await bench.seal()
        assert (200, 1) == (status, answer["n_turns"])
        status, _, body = await asking
        assert status == (200 if stream else 409)
        assert b"episode_sealed" in body
        assert bench.turns()[0].error == "sealed while in flight"
        assert isinstance(bench.events()[-1], EpisodeSealed)


async def test_a_seal_does_not_wait_for_calls_whose_client_has_gone(bench, engine):
    """A killed agent's calls are cut at once."""
    engine.gate.clear()
    asking = asyncio.create_task(bench.ask())
    await engine.entered.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    (story,) = bench.proxy.episodes
    await bench.until(lambda: all(call.gone for call in story.calls))
    status, _ = await asyncio.wait_for(bench.seal(outcome="timed_out"), 3)
    assert status == 200
    (turn,) = bench.turns()
    assert (True, "the client left") == (turn.disconnected, turn.error)


async def test_a_seal_that_the_log_refuses_is_a_503_and_can_be_repeated(bench):
    """The episode takes no call in between."""
    await bench.ask()
    bench.log.failing = True
    assert (await bench.seal())[0] == 503
    with pytest.raises(ConflictError):
        await bench.ask()
    bench.log.failing = False
    assert (await bench.seal())[1]["n_turns"] == 1
    assert len(bench.sealed()) == 1


class Stuck:
    """A call that does not end."""

    gone, gone_since = False, None

    def stop(self, why, *, in_s):
        """Nothing helps."""


async def test_a_seal_does_not_wait_for_ever_for_a_call_that_does_not_end(make):
    """It is to be repeated, and then ends the episode."""
    async with make(seal_wait_s=0.01, log_timeout_s=0.01) as bench:
        story = bench.proxy.episodes.of("e1")
        stuck = Stuck()
        story.enter(stuck, limit=1)
        async with asyncio.timeout(5):
            assert 503 == (await bench.seal())[0]
        assert not bench.sealed()
        story.leave(stuck, 0.0)
        assert 200 == (await bench.seal())[0]


@pytest.mark.parametrize(
    ("said", "written"),
    [(Outcome.COMPLETED, Outcome.INCOMPLETE), (Outcome.CANCELLED, Outcome.CANCELLED)],
)
async def test_a_lost_turn_makes_an_end_incomplete_that_would_count(bench, said, written):
    """Another end says more about the episode than that."""
    bench.proxy.episodes.of("e1").lost = 1
    assert written.value == (await bench.seal(outcome=said.value))[1]["outcome"]


async def test_a_hosts_words_about_an_end_are_cut_to_their_bound(bench):
    """A stack trace of megabytes is no event."""
    assert 200 == (await bench.seal(outcome="failed", error="x" * 100_000))[0]
    assert MAX_ERROR == len(bench.sealed()[0].error)


async def test_only_a_host_may_seal(bench):
    """An agent cannot end its own episode; another episode's host cannot either."""
    for token, status in (
        (bench.token(), 403),
        (None, 401),
        (mint(Claims(sub="other", scope="host"), [KEY]), 403),
        (mint(Claims(sub="*", scope="host"), [KEY]), 200),
    ):
        assert status == (await bench.post("/e/e1/seal", {}, token=token))[0]


async def test_a_seal_that_cannot_be_read_is_a_400(bench):
    """An unknown outcome ends nothing."""
    token = mint(Claims(sub="e1", scope="host"), [KEY])
    for body in ({"outcome": "won"}, b"{", []):
        status, _, answer = await bench.post("/e/e1/seal", body, token=token)
        assert (status, json.loads(answer)["error"]["code"]) == (400, "bad_request")
    assert not bench.events()
