"""No agent sees the end of a reply before the log has it."""

import asyncio
import json
import time
from unittest.mock import patch

import pytest
from aiohttp import ClientSession
from openai import InternalServerError

from odradek.infra.bus import MemoryAppender
from odradek.infra.errors import BusError, KafkaUnreachable, LogUnavailable
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules, fingerprint
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.errors import LogLost
from odradek.proxy.log import compose
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.codec import decode
from odradek.schemas.events import Outcome, Turn

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
PATH = "/e/e1/v1/chat/completions"


class SlowLog(MemoryAppender):
    """A log whose acknowledgement waits until it is let go."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def append(self, topic, **record):
        self.asked.set()
        await self.go.wait()
        return await super().append(topic, **record)


class DeadLog(SlowLog):
    """A log that gives up after a while, as Kafka's does."""

    async def append(self, topic, **record):
        try:
            async with asyncio.timeout(0.3):
                return await super().append(topic, **record)
        except TimeoutError:
            raise LogUnavailable("it took nothing") from None


async def test_a_whole_reply_waits_for_the_ack(make):
    """Not a byte of it is there before."""
    log = SlowLog()
    async with make(log) as bench:
        asking = asyncio.create_task(bench.ask())
        await log.asked.wait()
        await asyncio.sleep(0.02)
        assert not asking.done()
        log.go.set()
        assert (await asking).choices[0].finish_reason == "stop"


async def test_a_stream_passes_at_once_until_its_end_which_waits_for_the_ack(make):
    """Every chunk before the first finish reason is there; that one and all behind it are not."""
    log = SlowLog()
    async with make(log) as bench, ClientSession() as session:
        headers = {"Authorization": f"Bearer {bench.token()}"}
        url = f"{bench.url}/e/e1/v1/chat/completions"
        async with session.post(url, json={**BODY, "stream": True}, headers=headers) as answer:
            seen = b""
            while seen.count(b"data:") < 14:
                seen += await answer.content.readany()
            await log.asked.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer.content.readany(), 0.05)
            assert b'"stop"' not in seen
            log.go.set()
            rest = await answer.content.read()
    assert b'"stop"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_chunks_arrive_while_the_engine_is_still_sampling(bench, engine):
    """The proxy adds no buffering of its own."""
    engine.gate.clear()
    stream = await bench.ask(stream=True)
    first = await anext(stream)
    assert first.choices[0].delta.role == "assistant"
    engine.gate.set()
    assert [c async for c in stream][-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_log_that_refuses_is_a_503_and_the_end_is_never_seen(make, stream):
    """With Retry-After, and for a stream that has begun an error event in place of its end."""
    async with make(call_s=0.5) as bench:
        bench.log.failing = True
        body = {**BODY, "stream": stream}
        status, headers, answer = await bench.post(
            "/e/e1/v1/chat/completions", body, token=bench.token()
        )
        assert b'"finish_reason": "stop"' not in answer
        assert b'"finish_reason":"stop"' not in answer
        assert b"[DONE]" not in answer
        assert b"log_unavailable" in answer
        if not stream:
            assert (status, headers["Retry-After"]) == (503, "1")
            with pytest.raises(InternalServerError, match="withheld"):
                await bench.ask()


async def test_the_turn_of_a_503_keeps_its_number_and_goes_first(make, engine):
    """It may have landed: the same bytes are sent again, before the next turn."""
    async with make() as bench:
        bench.log.failing = True
        with pytest.raises(InternalServerError):
            await bench.ask("one")
        bench.log.failing = False
        await bench.ask("two")
        assert [0, 1] == [turn.seq for turn in bench.turns()]
        assert len(engine.calls) == 2


async def test_a_retry_after_a_503_gets_the_reply_without_sampling_again(make, engine):
    """The OpenAI client repeats by itself; the log is back; the engine is asked once."""
    async with make() as bench:
        bench.log.failing = True
        agent = bench.agent(max_retries=3)
        messages = [{"role": "user", "content": "x"}]
        asking = asyncio.create_task(
            agent.chat.completions.create(model="policy", messages=messages)
        )
        await bench.until(lambda: bench.proxy.turn_writer.health.failing_since is not None)
        bench.log.failing = False
        await asking
        assert len(engine.calls) == 1
        assert [0] == [turn.seq for turn in bench.turns()]


async def test_best_effort_serves_counts_and_marks_the_episode_incomplete(make):
    """The gap in seq shows the loss, and so does the seal's outcome."""
    async with make(durability="best_effort") as bench:
        bench.log.failing = True
        assert (await bench.ask("one")).choices[0].finish_reason == "stop"
        bench.log.failing = False
        await bench.ask("two")
        assert [1] == [turn.seq for turn in bench.turns()]
        assert (await bench.seal(outcome="completed"))[1]["outcome"] == "incomplete"
        assert bench.sealed()[0].n_turns == 2
        assert bench.sealed()[0].outcome is Outcome.INCOMPLETE
        async with ClientSession() as session, session.get(f"{bench.url}/healthz") as answer:
            assert (await answer.json())["lost"] == 1


class SmallLog(MemoryAppender):
    """A log that takes no large record."""

    async def append(self, topic, *, value, **record):
        if len(value) > 1500:
            raise BusError("too large")
        return await super().append(topic, value=value, **record)


async def test_a_turn_that_no_log_takes_leaves_an_empty_one_in_its_place(make):
    """The agent gets a 500 that says why; the numbering has no gap."""
    async with make(SmallLog()) as bench:
        body = {"model": "m", "messages": [{"role": "user", "content": "y" * 3000}]}
        status, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        assert (status, json.loads(answer)["error"]["code"]) == (500, "turn_too_large")
        await bench.ask("small")
        empty, small = bench.turns()
        assert [(0, "turn_too_large"), (1, "")] == [(t.seq, t.error) for t in (empty, small)]
        assert (fingerprint(json.dumps(body).encode()), ()) == (
            empty.request.digest,
            empty.request.messages,
        )


async def test_tokens_that_no_reader_accepts_are_left_out_of_their_turn():
    """The turn keeps its number, and says so."""
    log = MemoryAppender()
    draft = compose.draft(
        CHAT.parse(b'{"messages":[]}', RequestRules()), CapturedReply(prompt=b"odd")
    )
    await TurnWriter(log, "w", lambda: 0.0).turn(LiveEpisode("e", 0.0), draft)
    turn = decode(log.records[0].value, Turn)
    assert (0, "bad_tokens", b"") == (turn.seq, turn.untrainable, turn.prompt.ids)


async def test_a_turn_that_turns_out_too_large_after_an_outage_blocks_nothing(make):
    """Its content goes, its number stays; later calls and the seal go on."""
    log = SmallLog()
    async with make(log) as bench:
        body = {"model": "m", "messages": [{"role": "user", "content": "y" * 3000}]}
        log.failing = True
        with patch.object(SmallLog, "append", MemoryAppender.append):  # away: it judges no size
            assert (await bench.post(PATH, body, token=bench.token()))[0] == 503
        log.failing = False
        await bench.ask("small")
        assert [(0, "turn_too_large"), (1, "")] == [(t.seq, t.error) for t in bench.turns()]
        assert (await bench.seal())[1]["n_turns"] == 2


async def test_a_retry_gets_no_reply_whose_turn_turned_out_too_large(make):
    """The log has no content of it, so its agent must not have it either: 500, as the first."""
    log = SmallLog()
    async with make(log) as bench:
        body = {"model": "m", "messages": [{"role": "user", "content": "y" * 3000}]}
        log.failing = True
        with patch.object(SmallLog, "append", MemoryAppender.append):
            assert (await bench.post(PATH, body, token=bench.token()))[0] == 503
        log.failing = False
        again = {"x-stainless-retry-count": "1"}
        status, _, answer = await bench.post(PATH, body, token=bench.token(), headers=again)
        assert (500, "turn_too_large") == (status, json.loads(answer)["error"]["code"])
        assert ["turn_too_large"] == [turn.error for turn in bench.turns()]


class UnevenLog(MemoryAppender):
    """A log that takes ever less time for a record."""

    def __init__(self):
        super().__init__()
        self.left = 60

    async def append(self, topic, **record):
        self.left -= 3
        for _ in range(self.left):
            await asyncio.sleep(0)
        return await super().append(topic, **record)


async def test_a_slow_send_is_not_overtaken_by_a_later_number(make):
    """The next turn of an episode is sent when the one before it is acknowledged."""
    async with make(UnevenLog()) as bench:
        await asyncio.gather(*(bench.ask(f"question {n}") for n in range(12)))
        assert list(range(12)) == [turn.seq for turn in bench.turns()]


async def test_turns_of_one_episode_are_on_the_wire_in_the_order_of_their_numbers(bench):
    """However many are in flight at once."""
    await asyncio.gather(*(bench.ask(f"question {n}") for n in range(20)))
    assert list(range(20)) == [turn.seq for turn in bench.turns()]
    assert len({turn.turn_id for turn in bench.turns()}) == 20


async def test_an_unattributed_call_is_an_episode_of_its_own(make):
    """EpisodeOpened, Turn and EpisodeSealed, written by the proxy; only where the setting lets it in."""
    async with make(unattributed=True) as bench:
        assert (await bench.post("/v1/chat/completions", BODY))[0] == 200
        records = bench.log.on("rl.turns.v1")
        kinds = [dict(record.headers)["ce_type"] for record in records]
        assert [
            b"odradek.episode_opened.v1",
            b"odradek.turn.v1",
            b"odradek.episode_sealed.v1",
        ] == kinds
        assert len({record.key for record in records}) == 1
        assert decode(records[1].value, Turn).seq == 0
        assert len(bench.proxy.episodes) == 0
    async with make() as bench:
        assert (await bench.post("/v1/chat/completions", BODY))[0] == 401


async def test_a_token_attributes_a_call_whose_path_names_no_episode(bench):
    """Who calls is in the token."""
    assert (await bench.post("/v1/chat/completions", BODY, token=bench.token("e7")))[0] == 200
    assert len(bench.turns("e7")) == 1


async def test_brokers_that_answer_and_take_nothing_for_long_end_the_process(make):
    """A new process may help, and the supervisor starts one; a short outage ends nothing."""
    async with make(LOG_PATIENCE_S=1000) as bench:
        bench.log.failing = True
        assert (await bench.post("/e/e1/v1/chat/completions", BODY, token=bench.token()))[0] == 503
        health = bench.proxy.turn_writer.health
        await bench.until(lambda: health.answering_since is not None)
        bench.proxy.check_log()
        health.answering_since -= 2000
        with pytest.raises(LogLost, match="1000 s"):
            bench.proxy.check_log()
        bench.log.failing = False
        await bench.ask()
        bench.proxy.check_log()


async def test_brokers_that_are_away_end_nothing_however_long(make):
    """No restart would help, and whoever asks is told when to come again."""
    async with make(LOG_PATIENCE_S=1e-9, probe=away) as bench:
        bench.log.failing = True
        assert (await bench.post("/e/e1/v1/chat/completions", BODY, token=bench.token()))[0] == 503
        asked = away.times
        await bench.until(lambda: away.times > asked)
        bench.proxy.check_log()


async def away():
    """What the probe says of brokers that nobody can reach."""
    away.times += 1
    raise KafkaUnreachable("no Kafka answers")


away.times = 0


async def test_a_stream_that_has_begun_waits_for_the_log_as_long_as_the_call_may_last(make):
    """Its client cannot be told to come again; when the log is back, the end comes."""
    async with make() as bench:
        bench.log.failing = True
        stream = await bench.ask(stream=True)
        seen = asyncio.create_task(collect(stream))
        await bench.until(lambda: bench.proxy.turn_writer.health.failing_since is not None)
        assert not seen.done()
        bench.log.failing = False
        assert "stop" == (await seen)[-1].choices[0].finish_reason
        assert [0] == [turn.seq for turn in bench.turns()]


async def collect(stream):
    return [chunk async for chunk in stream]


async def test_while_the_log_takes_nothing_the_engine_is_asked_nothing(make, engine):
    """What cannot be recorded is not sampled: memory stays bounded, and nobody waits for long."""
    async with make(log_timeout_s=0.01, probe=away) as bench:
        bench.log.failing = True
        for n in range(20):
            status, headers, _ = await bench.post(
                f"/e/e{n}/v1/chat/completions", BODY, token=bench.token(f"e{n}")
            )
            assert (503, "1") == (status, headers["Retry-After"])
        assert 1 == len(engine.calls)
        assert 1 == len(bench.proxy.episodes)
        bench.proxy.turn_writer.health.failing_since -= 1000
        _, headers, _ = await bench.post("/e/e5/v1/chat/completions", BODY, token=bench.token("e5"))
        assert "30" == headers["Retry-After"]


async def test_a_log_that_is_back_is_found_out_though_nobody_calls(make):
    """The turn that was withheld goes into it, and the proxy is ready again."""
    async with make() as bench, ClientSession() as session:
        bench.log.failing = True
        assert (await bench.post("/e/e1/v1/chat/completions", BODY, token=bench.token()))[0] == 503
        async with session.get(f"{bench.url}/readyz") as answer:
            assert (503, "the log takes no turns now") == (
                answer.status, (await answer.json())["log"],
            )  # fmt: skip
        bench.log.failing = False
        await bench.until(lambda: bench.proxy.turn_writer.health.failing_since is None)
        assert [0] == [turn.seq for turn in bench.turns()]
        async with session.get(f"{bench.url}/readyz") as answer:
            assert 200 == answer.status


async def test_calls_of_one_episode_do_not_wait_for_a_dead_log_one_after_the_other(make):
    """Twenty at once are refused in the time of one."""
    log = DeadLog()
    async with make(log, log_timeout_s=0.3) as bench:
        began = time.monotonic()
        answers = await asyncio.gather(
            *(bench.post("/e/e1/v1/chat/completions", BODY, token=bench.token()) for _ in range(20))
        )
        assert {503} == {status for status, _, _ in answers}
        assert 20 * 0.3 > time.monotonic() - began
        log.go.set()
        await bench.until(lambda: bench.proxy.turn_writer.health.failing_since is None)
        assert (await bench.seal(outcome="failed"))[0] == 200
        assert list(range(bench.sealed()[0].n_turns)) == sorted(
            {turn.seq for turn in bench.turns()}
        )
