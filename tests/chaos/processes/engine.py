"""An engine: replies by the oracle, weight routes that count versions, and write down which it served.

`python -m tests.chaos.processes.engine PORT [NAME]`. Where CHAOS_ENGINE_TROUBLE is a seed, the second one of a run
refuses and lags now and then when it is to be loaded.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from tests.chaos.verification import oracle

SERVED = "CHAOS_SERVED"
"""Names the file in which engines write (address, time, version)."""
TROUBLE = "CHAOS_ENGINE_TROUBLE"
TROUBLED = "engine-1"


class Engine:
    """vLLM's surface as far as the pipeline uses it."""

    def __init__(self, url: str, name: str = "") -> None:
        self.version = 0
        self._url = url
        seed = os.environ.get(TROUBLE) if name == TROUBLED else None
        # Another one at each start: it must not refuse the same thing for ever.
        self._trouble = random.Random(f"{seed}/{os.getpid()}") if seed else None
        self._write()
        self.open = asyncio.Event()
        self.open.set()
        self._ids = itertools.count()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        workload = msgspec.json.decode(await request.read())
        messages = workload["messages"]
        key = messages[-1]["content"]
        await self.open.wait()
        await asyncio.sleep(oracle.draw("latency", key) % 20 / 1000)
        ids, logprobs = oracle.completion(key), oracle.logprobs(key)
        head = {"id": f"c{next(self._ids)}", "created": 1, "model": workload["model"]}
        usage = {"prompt_tokens": 1, "completion_tokens": len(ids), "total_tokens": len(ids) + 1}
        prompt = oracle.prompt(messages)
        if not workload.get("stream"):
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": oracle.said(key)},
                "logprobs": {"content": [_token(*one) for one in zip(ids, logprobs, strict=True)]},
                "finish_reason": "stop",
                "token_ids": ids,
                "weight_versions": [self._span(0, len(ids))],
            }
            body = {"object": "chat.completion", **head, "choices": [choice], "usage": usage}
            return _json(body | {"prompt_token_ids": prompt})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        text = oracle.said(key).split(" ")
        for at, (token, logprob) in enumerate(zip(ids, logprobs, strict=True)):
            last = at == len(ids) - 1
            piece = "" if last else text[at] if at == 0 else f" {text[at]}"
            choice = {
                "index": 0,
                "delta": {"content": piece} | ({"role": "assistant"} if at == 0 else {}),
                "logprobs": {"content": [_token(token, logprob)]},
                "finish_reason": "stop" if last else None,
                "token_ids": [token],
            }
            if last:
                choice["weight_versions"] = [self._span(0, len(ids))]
            chunk = {"object": "chat.completion.chunk", **head, "choices": [choice]}
            chunk["prompt_token_ids"] = prompt if at == 0 else None
            await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
            if at == 0:
                await asyncio.sleep(0.001)
        tail = {"object": "chat.completion.chunk", **head, "choices": [], "usage": usage}
        await response.write(b"data: " + msgspec.json.encode(tail) + b"\n\ndata: [DONE]\n\n")
        await response.write_eof()
        return response

    def _span(self, start: int, end: int) -> dict[str, int]:
        return {"version": self.version, "start": start, "end": end}

    def _write(self) -> None:
        if path := os.environ.get(SERVED):
            with Path(path).open("ab", buffering=0) as file:
                file.write(msgspec.json.encode((self._url, time.time(), self.version)) + b"\n")

    async def pause(self, _: web.Request) -> web.Response:
        if self._trouble is not None:
            fate = self._trouble.random()
            if fate < 0.2:
                return web.Response(status=500, text="refused")
            if fate < 0.4:
                await asyncio.sleep(self._trouble.uniform(0.5, 3.0))
        self.open.clear()
        return _json({})

    async def resume(self, _: web.Request) -> web.Response:
        self.open.set()
        return _json({})

    async def rename(self, request: web.Request) -> web.Response:
        version = int(msgspec.json.decode(await request.read())["new_version"])
        if version != self.version:
            self.version = version
            self._write()
        return _json({})

    async def weights(self, _: web.Request) -> web.Response:
        return _json({"weight_version": str(self.version) if self.version else "default"})

    async def nothing(self, _: web.Request) -> web.Response:
        return _json({})


def _token(token: int, logprob: float) -> dict[str, object]:
    return {"token": str(token), "logprob": logprob, "bytes": None, "top_logprobs": []}


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def serve(port: int, name: str = "") -> None:
    """Listen on loopback until the process is told to end."""
    engine = Engine(f"http://127.0.0.1:{port}", name)
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", engine.chat),
            web.get("/health", engine.nothing),
            web.get("/v1/models", engine.nothing),
            web.get("/weight_info", engine.weights),
            web.post("/pause", engine.pause),
            web.post("/resume", engine.resume),
            web.post("/collective_rpc", engine.nothing),
            web.post("/update_weight_version", engine.rename),
            web.post("/reset_prefix_cache", engine.nothing),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    print("ready: engine", flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:]))
