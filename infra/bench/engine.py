"""A mock engine that answers at once: 1000 prompt ids, 64 sampled ids with logprobs.

`python -m odradek.infra.bench.engine PROMPT_IDS SAMPLED` prints the port that it listens on.
"""

import asyncio
import itertools
import json
import random
import sys
from typing import Final

import uvloop

from odradek.infra.bench import wire

VARIANTS: Final = 64
VOCABULARY: Final = 150_000


def reply(number: int, prompt_ids: int, sampled: int) -> bytes:
    """A reply with vLLM's fields; its ids are random, so nothing compresses by luck."""
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


async def serve(prompt_ids: int, sampled: int) -> None:
    """Listen on loopback for ever."""
    answers = itertools.cycle(
        [wire.response(reply(number, prompt_ids, sampled)) for number in range(VARIANTS)]
    )
    empty = wire.response(b"{}")

    def answer(head: bytes, _: bytes) -> bytes:
        return next(answers) if head.startswith(b"POST /v1/chat/completions") else empty

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: wire.Server(answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
