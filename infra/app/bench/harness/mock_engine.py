"""A mock engine that answers at once, whole or as a stream, with ids and logprobs.

`python -m odradek.infra.app.bench.harness.mock_engine PROMPT_IDS SAMPLED` prints the port on
which it listens.
"""

import asyncio
import itertools
import json
import random
import re
import sys
from typing import Final

import uvloop

from odradek.infra.app.bench.harness import raw_http
from odradek.schemas.http.engine import CHAT

VARIANTS: Final = 61
"""A prime, so that no episode of the load gets the same ids twice."""
VOCABULARY: Final = 150_000
CHAT_HEAD: Final = f"{CHAT.method} {CHAT.path}".encode()
STREAM: Final = re.compile(rb'"stream": ?true')


def reply(number: int, prompt_ids: int, sampled: int) -> bytes:
    """A reply with the surface's fields; its ids are random, so nothing compresses by luck."""
    chance = random.Random(number)  # noqa: S311 - a payload, no secret
    ids = [chance.randrange(VOCABULARY) for _ in range(sampled)]
    content = [
        {
            "token": f" w{i % 997}", "logprob": -chance.random() * 3,
            "bytes": list(f" w{i % 997}".encode()), "top_logprobs": [],
        }
        for i in ids
    ]  # fmt: skip
    choice = {
        "index": 0,
        "message": {
            "role": "assistant", "content": " ".join(f"w{i % 997}" for i in ids),
            "refusal": None, "annotations": None, "audio": None, "function_call": None,
            "reasoning": None,
        },
        "logprobs": {"content": content},
        "finish_reason": "stop",
        "stop_reason": None,
        "token_ids": ids,
        "routed_experts": None,
        "weight_versions": [{"version": 3, "start": 0, "end": sampled}],
    }  # fmt: skip
    body = {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1_700_000_000,
        "model": "policy", "choices": [choice], "service_tier": None, "system_fingerprint": None,
        "usage": {
            "prompt_tokens": prompt_ids, "total_tokens": prompt_ids + sampled,
            "completion_tokens": sampled, "prompt_tokens_details": None,
        },
        "prompt_logprobs": None,
        "prompt_token_ids": [chance.randrange(VOCABULARY) for _ in range(prompt_ids)],
        "kv_transfer_params": None,
    }  # fmt: skip
    return json.dumps(body, separators=(",", ":")).encode()


def chunks(number: int, prompt_ids: int, sampled: int) -> list[bytes]:
    """The same reply as a stream, a token a chunk."""
    body = json.loads(reply(number, prompt_ids, sampled))
    choice = body["choices"][0]
    head = {"id": body["id"], "object": "chat.completion.chunk", "created": body["created"],
            "model": body["model"]}  # fmt: skip
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
             "finish_reason": None}  # fmt: skip
    events = [{**head, "choices": [first], "prompt_token_ids": body["prompt_token_ids"]}]
    words = choice["message"]["content"].split(" ")
    for at, (word, token) in enumerate(zip(words, choice["token_ids"], strict=True)):
        last = at == sampled - 1
        piece = {
            "index": 0,
            "delta": {"content": word if at == 0 else f" {word}"},
            "logprobs": {"content": [choice["logprobs"]["content"][at]]},
            "finish_reason": "stop" if last else None,
            "token_ids": [token],
        }
        if last:
            piece["weight_versions"] = choice["weight_versions"]
        events.append({**head, "choices": [piece]})
    return [json.dumps(event, separators=(",", ":")).encode() for event in events]


async def serve(prompt_ids: int, sampled: int) -> None:
    """Listen on loopback for ever."""
    numbers = range(VARIANTS)
    answers = itertools.cycle([[raw_http.response(reply(n, prompt_ids, sampled))] for n in numbers])
    streams = itertools.cycle([raw_http.streamed(chunks(n, prompt_ids, sampled)) for n in numbers])
    empty = [raw_http.response(b"{}")]

    def answer(head: bytes, body: bytes) -> list[bytes]:
        if not head.startswith(CHAT_HEAD):
            return empty
        return next(streams if STREAM.search(body) else answers)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: raw_http.HTTPServer(answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
