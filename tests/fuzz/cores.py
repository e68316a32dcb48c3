"""Requests and replies through the proxy's pure parts: `python -m tests.fuzz.cores CASES SEED`.

Each case is a mutated request (`mutations.py`); where a dialect takes it, the engine's reply is
mutated, too, or cut off, garbled and split anywhere as a stream. What holds for each: nothing but
errors of ours is raised, and the turn that is made of it can be read back from the log.
"""

import asyncio
import json
import random
import sys
import time
import traceback
from types import SimpleNamespace

from odradek.infra.bus import MemoryAppender
from odradek.proxy.calls.capture import whole
from odradek.proxy.calls.commit import remember
from odradek.proxy.calls.engine_request import EngineAnswer
from odradek.proxy.calls.stream import StreamRelay
from odradek.proxy.dialects import DIALECTS
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.episodes.draft import AgentReply, RecordedReply
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.errors import EngineBroke, ProxyError
from odradek.proxy.log import compose
from odradek.proxy.log.writer import TurnWriter
from odradek.schemas import codec
from odradek.schemas.events import TurnsEvent
from tests.fuzz.mutations import TOLD, case, mutated, scratched
from tests.support.engines.stub_engine import StubEngine


class Reading(MemoryAppender):
    """A log that reads each turn back, and keeps none."""

    async def append(self, topic, *, value, **record):
        """See `Appender`."""
        codec.decode(value, TurnsEvent)
        self.records.clear()
        return await super().append(topic, value=value, **record)


def engines(path, body):
    """The stub engine's whole reply and its chunks; to a plain request where it trips over this."""
    try:
        asked = json.loads(body)
    except ValueError:  # a number with more digits than Python reads
        asked = {}
    made = {**asked, "call": 1, "stream": False}
    for one in (made, {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "call": 1}):
        engine = StubEngine()
        try:
            if path == "/completions":
                return engine.text_reply(one), list(engine.text_chunks(one))
            return engine.reply(one), list(engine.chunks(one))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, UnicodeError):
            continue
    raise AssertionError("the stub answers a plain request")


def spoiled(chance, value):
    """JSON of a value, as a rule with something wrong."""
    for _ in range(chance.choice((0, 0, 1, 2))):
        value = mutated(chance, value)
    data = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode(errors="replace")
    return scratched(chance, data) if chance.random() < 0.1 else data


async def streamed(chance, ask, chunks):
    """The relay over the chunks as a stream, cut anywhere, with some of its lines spoiled."""
    end = chance.choice((b"\n", b"\n", b"\r\n", b"\r"))
    wire = b"".join(b"data: " + spoiled(chance, one) + end + end for one in chunks)
    wire = scratched(chance, wire + b"data: [DONE]" + end + end)
    call = SimpleNamespace(
        request=ask, joined=True, gone=True, ttft_ms=None, ms=lambda: 1.0, ended_by=""
    )
    relay = StreamRelay(call)
    while wire:
        n = chance.choice((1, 7, 100, 10_000))
        await relay.feed(wire[:n])
        wire = wire[n:]
    if chance.random() < 0.2:
        relay.broke(EngineBroke("it broke"))
    relay.finish()
    return relay.captured(), b"".join(relay.pieces)


async def one(seed, number, recorder, story):
    """A case. Raises what no agent and no engine may bring about."""
    path, _, data = case(seed, number)
    path, _, query = path.partition("?")
    path = max((known for known in DIALECTS if path.endswith(known)), key=len, default="/messages")
    dialect = DIALECTS[path]
    if path.startswith(":"):
        dialect = dialect.at("m", "sse" if query else None)
    try:
        ask = dialect.parse(data, RequestRules(memory=story.memory))
    except ProxyError as error:
        assert error.status < 500, error
        return False
    chance = random.Random(f"{seed}/{number}/reply")
    reply, chunks = engines(path, ask.body)
    if ask.stream:
        found, told = await streamed(chance, ask, chunks)
    else:
        found, answer = whole(EngineAnswer(200, {}, spoiled(chance, reply)), ask)
        told = b"".join(answer.chunks)
    drafts = tuple(compose.draft(ask.of(each.choice), each) for each in found)
    for draft in drafts:
        await recorder.turn(story, draft)
    if ask.content_type and told:
        json.loads(told)  # a stream as an array, whatever became of it
    answer = AgentReply(status=200, headers={}, chunks=(told,))
    remember(story, RecordedReply(drafts=drafts, answer=answer))
    return True


async def main(cases, seed):
    """Run all cases; return how many failed."""
    failed = taken = 0
    recorder, story = TurnWriter(Reading(), "w", time.monotonic), LiveEpisode("e", 0.0)
    for number in range(cases):
        if number % 50 == 0:
            story = LiveEpisode(f"e{number}", 0.0)
        try:
            taken += await one(seed, number, recorder, story)
        except Exception:
            failed += 1
            story = LiveEpisode(f"e{number}", 0.0)
            if failed <= TOLD:
                print(f"case {number} of seed {seed}:")
                traceback.print_exc(limit=-3, file=sys.stdout)
    print(f"{cases} cases of seed {seed} in process, {taken} taken, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(int(sys.argv[1]), sys.argv[2])) else 0)
