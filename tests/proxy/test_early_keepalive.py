"""Signs of life before an engine has the call: while a prompt is made, and while the log is slow."""

import json

import pytest
from aiohttp import ClientSession, ClientTimeout

from odradek.proxy.dialects.tools.hosted import HEADER as DROPPED

from .test_ack import DeadLog, SlowLog
from .test_keepalive import HI, PATHS, SOON_S, asked, asking, heard, left, ping, soon, told
from .test_retries import RETRY_COUNT

__all__ = ["soon"]
HOSTED = {
    "/chat/completions": {"web_search_options": {}},
    "/messages": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "/responses": {"tools": [{"type": "web_search"}]},
}
NAMES = {"/messages": "web_search_20250305", "/responses": "web_search"}


@pytest.mark.parametrize("path", PATHS)
async def test_an_episode_that_waits_to_be_opened_is_silence(soon, engine, path):
    """Nothing is sampled before the log has it, and the agent hears that somebody is there."""
    log = SlowLog()
    async with (
        soon(log, unattributed=True) as bench,
        ClientSession(timeout=ClientTimeout(total=20)) as session,
        session.post(f"{bench.url}/v1{path}", json=asked(path)) as answer,
    ):
        seen = await heard(answer, ping(path), 2)
        assert not engine.calls
        log.go.set()
        rest = await answer.content.read()
        assert told(path, seen + rest)
        assert 1 == len(engine.calls)
        kinds = [dict(record.headers)["ce_type"] for record in log.on("rl.turns.v1")]
        assert [
            b"odradek.episode_opened.v1",
            b"odradek.turn.v1",
            b"odradek.episode_sealed.v1",
        ] == kinds


@pytest.mark.parametrize("path", PATHS)
async def test_an_episode_that_cannot_be_opened_is_an_error_of_its_stream(soon, engine, path):
    """It has heard something, so it can have no status; nothing is sampled."""
    async with (
        soon(DeadLog(), unattributed=True) as bench,
        ClientSession(timeout=ClientTimeout(total=20)) as session,
        session.post(f"{bench.url}/v1{path}", json=asked(path)) as answer,
    ):
        assert 200 == answer.status
        assert b"withheld" in await answer.content.read()
        assert not engine.calls


async def test_a_prompt_that_is_being_made_is_silence(soon, engine):
    """Its three renderings may take their time; the reply is what it would have been."""
    engine.script = [{"content": "so"}, {"content": "yes"}]
    path, said = "/chat/completions", {"model": "policy", "messages": HI}
    async with soon(continuation="bridge") as bench:
        async with asking(bench, path, **said) as answer:
            await answer.read()
        said["messages"] = [*HI, {"role": "assistant", "content": "so"}, *HI]
        engine.renders.clear()
        async with asking(bench, path, **said) as answer:
            seen = await heard(answer, ping(path), 2)
            assert 1 == len(engine.calls)
            engine.renders.set()
            seen += await answer.content.read()
        assert b"[DONE]" in seen
        assert ["render", "bridge"] == [turn.continuation.mode for turn in bench.turns()]


@pytest.mark.parametrize("path", PATHS)
async def test_a_retry_that_hears_something_hears_what_was_left_out(soon, engine, path):
    """The header comes with the first byte, whoever's reply it is."""
    more = HOSTED.get(path, {})
    async with soon() as bench:
        bench.proxy.calls.silence_s = 60.0
        engine.head.clear()
        await left(bench, path, engine, **more)
        bench.proxy.calls.silence_s = SOON_S
        async with asking(bench, path, {RETRY_COUNT: "1"}, **more) as answer:
            await heard(answer, ping(path), 2)
            expected = NAMES.get(path, "web_search_options") if more else None
            assert expected == answer.headers.get(DROPPED)
            engine.head.set()
            await answer.content.read()
        assert 1 == len(engine.calls)


@pytest.mark.parametrize("path", PATHS)
async def test_a_kept_reply_that_waits_for_the_log_is_silence(soon, engine, path):
    """A retry gets the reply that is there, once the log has it as one that was released."""
    log = SlowLog()
    log.go.set()
    more = HOSTED.get(path, {})
    async with soon(log) as bench:
        bench.proxy.calls.silence_s = 60.0
        engine.head.clear()
        await left(bench, path, engine, **more)
        engine.head.set()
        (story,) = bench.proxy.episodes
        await bench.until(lambda: story.orphans)
        log.go.clear()
        bench.proxy.calls.silence_s = SOON_S
        async with asking(bench, path, {RETRY_COUNT: "1"}, **more) as answer:
            seen = await heard(answer, ping(path), 2)
            assert bool(more) == (DROPPED in answer.headers)
            log.go.set()
            seen += await answer.content.read()
        assert told(path, seen)
        assert 1 == len({json.dumps(one) for one in engine.calls})
