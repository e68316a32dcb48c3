"""The floor: a loop that captures and acknowledges each call, and does nothing else.

An aiohttp server and client on uvloop; the request is parsed and sent on with the three fields
that make an engine return its tokens; the reply is parsed, and one event with its ids and logprobs
is acknowledged by the broker before the reply goes out. No tokens of access, episodes, deltas,
retries, seals, streams, limits or trimmed fields. What the proxy costs beyond this is the price of
those.

`python -m odradek.infra.app.bench.harness.baseline ENGINE_PORT` prints the port that it listens on.
"""

import asyncio
import sys
from array import array
from itertools import count
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from odradek.infra.bus import BusSettings, KafkaAppender
from odradek.schemas.topics import TURNS

FORCED: Final = {"logprobs": True, "return_token_ids": True, "return_weight_versions": True}


class _Logprob(msgspec.Struct):
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_Logprob]


class _Choice(msgspec.Struct):
    message: msgspec.Raw
    token_ids: list[int]
    logprobs: _Logprobs


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    prompt_token_ids: list[int]


async def serve(engine_port: int) -> None:
    """Listen on loopback for ever."""
    engine = f"http://127.0.0.1:{engine_port}/v1/chat/completions"
    read_request = msgspec.json.Decoder(dict[str, Any]).decode
    read_reply = msgspec.json.Decoder(_Reply).decode
    write = msgspec.json.Encoder().encode
    numbers = count()
    appender = await KafkaAppender.connect(BusSettings())
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def complete(request: web.Request) -> web.Response:
        payload = read_request(await request.read())
        payload.update(FORCED)
        async with session.post(engine, data=write(payload)) as upstream:
            body = await upstream.read()
        reply = read_reply(body)
        choice = reply.choices[0]
        turn = {
            "messages": payload["messages"],
            "reply": choice.message,
            "prompt": array("I", reply.prompt_token_ids).tobytes(),
            "ids": array("I", choice.token_ids).tobytes(),
            "logprobs": array("f", [token.logprob for token in choice.logprobs.content]).tobytes(),
        }
        await appender.append(TURNS.name, key=str(next(numbers)), value=write(turn), headers=())
        return web.Response(body=body, content_type="application/json")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
