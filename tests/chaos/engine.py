"""An engine that is never killed: replies by the oracle, weight routes that only count versions.

`python -m chaos.engine PORT`
"""

import asyncio
import itertools
import sys

import msgspec
import uvloop
from aiohttp import web

from chaos import oracle


class Engine:
    """vLLM's surface as far as the pipeline uses it."""

    def __init__(self) -> None:
        self.version = 0
        self.open = asyncio.Event()
        self.open.set()
        self._ids = itertools.count()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read())
        messages = asked["messages"]
        key = messages[-1]["content"]
        await self.open.wait()
        await asyncio.sleep(oracle.draw("latency", key) % 20 / 1000)
        ids, logprobs = oracle.completion(key), oracle.logprobs(key)
        head = {"id": f"c{next(self._ids)}", "created": 1, "model": asked["model"]}
        usage = {"prompt_tokens": 1, "completion_tokens": len(ids), "total_tokens": len(ids) + 1}
        prompt = oracle.prompt(messages)
        if not asked.get("stream"):
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

    async def pause(self, _: web.Request) -> web.Response:
        self.open.clear()
        return _json({})

    async def resume(self, _: web.Request) -> web.Response:
        self.open.set()
        return _json({})

    async def rename(self, request: web.Request) -> web.Response:
        self.version = int(msgspec.json.decode(await request.read())["new_version"])
        return _json({})

    async def nothing(self, _: web.Request) -> web.Response:
        return _json({})


def _token(token: int, logprob: float) -> dict[str, object]:
    return {"token": str(token), "logprob": logprob, "bytes": None, "top_logprobs": []}


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def serve(port: int) -> None:
    """Listen on loopback until the process is ended."""
    engine = Engine()
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", engine.chat),
            web.get("/health", engine.nothing),
            web.get("/v1/models", engine.nothing),
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
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
