"""What an episode costs on the log grows with its length, not with its square."""

import base64
import json
import random
import time

from odradek.infra.bus import MemoryAppender
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.log import compose
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.wire.reply import whole
from odradek.schemas.events import Timing
from odradek.schemas.topics import TURNS

TURNS_OF_EPISODE = 50
WORDS = ("alpha", "beta", "gamma", "delta", "run", "tests", "fail", "file", "line")
TOOLS = [{"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}]


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def size(record):
    """Bytes of a record."""
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key) + len(record.value) + headers


async def test_fifty_turns_cost_little_more_than_their_content_once():
    """At most 1.31 times every message, id and log probability written a single time.

    All of a record counts, its key and its headers, too, before compression.
    """
    chance = random.Random(1)

    def words(n):
        return " ".join(chance.choice(WORDS) for _ in range(n))

    def tokens(n):
        return [chance.randrange(150_000) for _ in range(n)]

    log = MemoryAppender()
    recorder, story = TurnWriter(log, "w" * 7, time.monotonic), LiveEpisode("e" * 36, 0.0)
    ids = tokens(1000)
    messages = [{"role": "system", "content": words(600)}, {"role": "user", "content": words(400)}]
    for turn in range(TURNS_OF_EPISODE):
        body = compact({"model": "policy", "messages": messages, "tools": TOOLS})
        sampled = tokens(100)
        call = {"name": "run", "arguments": compact({"command": words(10)}).decode()}
        said = {
            "role": "assistant",
            "content": words(80),
            "tool_calls": [{"id": f"call_{turn}", "type": "function", "function": call}],
        }
        choice = {
            "index": 0,
            "message": said,
            "finish_reason": "tool_calls",
            "token_ids": sampled,
            "logprobs": {"content": [{"logprob": -chance.random()} for _ in sampled]},
            "weight_versions": [{"version": 120 + turn, "start": 0, "end": len(sampled)}],
        }
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(sampled)}
        named = {"id": f"chatcmpl-{chance.getrandbits(128):032x}", "usage": usage}
        reply = compact({**named, "choices": [choice], "prompt_token_ids": ids})
        (captured,) = whole(reply)
        draft = compose.draft(
            CHAT.parse(body, RequestRules()),
            captured,
            status=200,
            agent="coder",
            timing=Timing(started_at=1_700_000_000.123, total_ms=round(chance.random() * 9000, 3)),
        )
        await recorder.turn(story, draft)
        answer = {"role": "tool", "tool_call_id": f"call_{turn}", "content": words(90)}
        once = messages = [*messages, said]
        messages, ids = [*messages, answer], ids + sampled + tokens(100)
    seen = 1000 + 200 * TURNS_OF_EPISODE - 100
    content = len(compact(once)) + len(compact(TOOLS))
    content += len(base64.b64encode(bytes(4 * seen)))
    content += len(base64.b64encode(bytes(4 * 100 * TURNS_OF_EPISODE)))
    assert 1.31 >= sum(map(size, log.on(TURNS.name))) / content
