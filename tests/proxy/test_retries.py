"""A client's retry does not sample again, and no reply is handed out twice."""

import asyncio
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession

from odradek.proxy.calls.call import RETRY_COUNT, repeated
from odradek.proxy.calls.retries import MAX_ORPHANS

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
PATH = "/e/e1/v1/chat/completions"


async def leave(bench, engine, body, count=0):
    """A client that asks (for the count-th time again) and goes before the answer comes."""
    engine.entered.clear()
    if count:
        engine.entered.set()  # it joins a call that is with the engine already

    def calls():
        return {call for story in bench.proxy.episodes for call in story.calls}

    before = calls()
    async with ClientSession() as session:
        headers = {"Authorization": f"Bearer {bench.token()}", RETRY_COUNT: str(count)}
        asking = asyncio.create_task(session.post(bench.url + PATH, json=body, headers=headers))
        await engine.entered.wait()
        await bench.until(lambda: bool(calls() - before))
        if body.get("stream"):
            answer = await asking
            await answer.content.readany()
            answer.close()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    (call,) = calls() - before
    await bench.until(lambda: call.gone)
    return call


@pytest.mark.parametrize(
    ("said", "expected"),
    [("2", 2), ("", 0), ("-1", 0), ("1.5", 0), ("\u00b2", 0), ("9" * 9, 1000), ("9" * 5000, 0)],
)
def test_a_retry_count_is_a_small_number_or_none(said, expected):
    """A client's header breaks no call."""
    assert expected == repeated(SimpleNamespace(headers={RETRY_COUNT: said}))


def retry(bench, body, count=1):
    import json

    return bench.post(
        PATH, json.dumps(body).encode(), token=bench.token(), headers={RETRY_COUNT: str(count)}
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_joins_the_call_whose_client_has_gone(bench, engine, stream):
    """One sample, one turn, not cut, with the client's retry count."""
    engine.gate.clear()
    body = {**BODY, "stream": stream}
    call = await leave(bench, engine, body)
    again = asyncio.create_task(retry(bench, body, 2))
    await bench.until(lambda: call.joined)
    engine.gate.set()
    status, headers, answer = await again
    assert status == 200
    assert len(engine.calls) == 1
    (turn,) = bench.turns()
    assert (False, 2, "") == (turn.disconnected, turn.retry_count, turn.error)
    if stream:
        assert headers["Content-Type"] == "text/event-stream"
        assert answer.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_takes_the_reply_that_nobody_got_exactly_once(bench, engine, stream):
    """The cut turn stays, superseded by the one that was released; the next retry samples."""
    engine.gate.clear()
    body = {**BODY, "stream": stream}
    await leave(bench, engine, body)
    engine.gate.set()
    await bench.until(lambda: len(bench.turns()) == 1)
    assert bench.turns()[0].disconnected
    assert (await retry(bench, body))[0] == 200
    assert len(engine.calls) == 1
    cut, released = bench.turns()
    assert (False, cut.turn_id, 1) == (
        released.disconnected,
        released.supersedes,
        released.retry_count,
    )
    assert cut.completion == released.completion
    assert (await retry(bench, body))[0] == 200
    assert len(engine.calls) == 2


async def test_two_equal_requests_at_once_are_two_samples(bench, engine):
    """A digest alone joins nothing, nor does a retry count while the client is there."""
    engine.gate.clear()
    first = asyncio.create_task(bench.post(PATH, BODY, token=bench.token()))
    await engine.entered.wait()
    second = asyncio.create_task(retry(bench, BODY))
    await bench.until(lambda: len(engine.calls) == 2)
    engine.gate.set()
    assert [200, 200] == [answer[0] for answer in await asyncio.gather(first, second)]
    assert [2, 2] == [turn.equal_calls for turn in bench.turns()]


async def test_an_equal_request_that_is_no_retry_samples_anew(bench, engine):
    """The cut turn's reply waits for its own client."""
    engine.gate.clear()
    await leave(bench, engine, BODY)
    engine.gate.set()
    await bench.until(lambda: len(bench.turns()) == 1)
    await bench.post(PATH, BODY, token=bench.token())
    assert len(engine.calls) == 2


async def test_two_retries_of_one_lost_call_get_two_replies(bench, engine):
    """The first joins, the second samples."""
    engine.gate.clear()
    call = await leave(bench, engine, BODY)
    first = asyncio.create_task(retry(bench, BODY))
    await bench.until(lambda: call.joined)
    second = asyncio.create_task(retry(bench, BODY))
    await bench.until(lambda: len(engine.calls) == 2)
    engine.gate.set()
    answers = await asyncio.gather(first, second)
    assert answers[0][2] != answers[1][2]
    assert len(bench.turns()) == 2


async def test_a_retry_that_leaves_as_well_hands_its_place_to_one_other(bench, engine):
    """The third try joins what the second had joined; the fourth samples."""
    engine.gate.clear()
    await leave(bench, engine, BODY)
    await leave(bench, engine, BODY, 1)
    (call,) = [c for story in bench.proxy.episodes for c in story.calls if not c.follows]
    third = asyncio.create_task(retry(bench, BODY, 2))
    await bench.until(lambda: call.retries == 2)
    fourth = asyncio.create_task(retry(bench, BODY, 3))
    await bench.until(lambda: len(engine.calls) == 2)
    engine.gate.set()
    answers = await asyncio.gather(third, fourth)
    assert [200, 200] == [answer[0] for answer in answers]
    assert answers[0][2] != answers[1][2]
    assert len(bench.turns()) == 2


async def test_a_retry_that_leaves_holds_up_no_seal(bench, engine):
    """Another took its place at the call that both had joined: nothing waits any more."""
    engine.gate.clear()
    await leave(bench, engine, BODY)
    second = await leave(bench, engine, BODY, 1)
    third = asyncio.create_task(retry(bench, BODY, 2))
    (story,) = bench.proxy.episodes
    await bench.until(lambda: second not in story.calls)
    engine.gate.set()
    assert (await third)[0] == 200
    assert (200, 1) == ((sealed := await bench.seal())[0], sealed[1]["n_turns"])


async def test_an_engines_error_is_not_taken_for_a_reply(bench, engine):
    """A retry after a 4xx or 5xx of the engine asks it again."""
    engine.mode = "error"
    assert (await bench.post(PATH, BODY, token=bench.token()))[0] == 400
    engine.mode = "ok"
    assert (await retry(bench, BODY))[0] == 200
    assert len(engine.calls) == 2


async def test_a_call_that_failed_is_not_counted_among_equal_ones(bench, engine):
    """Its retry is the same call, whichever status it got."""
    engine.mode = "error"
    await bench.post(PATH, BODY, token=bench.token())
    engine.mode = "ok"
    await retry(bench, BODY)
    assert ["", 1] == [bench.turns()[-1].error, bench.turns()[-1].equal_calls]


async def test_a_stream_of_several_choices_that_broke_counts_as_one_call(bench, engine):
    """Each choice is a turn with the error; what is told of equal calls goes back by one."""
    engine.mode = "die"
    await bench.post(PATH, {**BODY, "n": 2, "stream": True}, token=bench.token())
    assert all(turn.error for turn in bench.turns())
    (story,) = bench.proxy.episodes
    assert [0] == list(story.begun.values())


async def test_of_many_replies_that_nobody_got_each_is_superseded_by_its_retry(make, engine):
    """More than are kept: the log falls away while they are at the engine, and takes all later."""
    n = 2 * MAX_ORPHANS
    bodies = [{**BODY, "messages": [{"role": "user", "content": str(i)}]} for i in range(n)]
    engine.gate.clear()
    async with make() as bench:
        asking = [asyncio.create_task(bench.post(PATH, one, token=bench.token())) for one in bodies]
        await bench.until(lambda: len(engine.calls) == n)
        bench.log.failing = True
        engine.gate.set()
        assert {503} == {answer[0] for answer in await asyncio.gather(*asking)}
        bench.log.failing = False
        assert [200] * n == [(await retry(bench, one))[0] for one in bodies]
        turns = bench.turns()
        gone = {turn.supersedes for turn in turns}
        assert n == len({t.request.digest for t in turns})
        assert n == len([turn for turn in turns if turn.turn_id not in gone])


async def test_a_new_sample_supersedes_a_turn_that_was_never_released(make, engine):
    """The client of the first was told 503, so that turn counts no more."""
    async with make() as bench:
        bench.log.failing = True
        assert (await bench.post(PATH, BODY, token=bench.token()))[0] == 503
        bench.log.failing = False
        assert (await bench.post(PATH, BODY, token=bench.token()))[0] == 200
        first, second = bench.turns()
        assert first.turn_id == second.supersedes


async def test_a_call_whose_client_left_for_good_ends(make, engine):
    """After a while without a retry the engine is let go, and the turn is cut."""
    engine.gate.clear()
    async with make(ORPHAN_S=0.0) as bench:
        await leave(bench, engine, BODY)
        await bench.until(lambda: len(bench.turns()) == 1)
        (turn,) = bench.turns()
        assert (True, "the client left") == (turn.disconnected, turn.error)
