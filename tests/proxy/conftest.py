"""A stub engine with vLLM's surface whose tokens anyone can compute again, and a proxy before it."""

import asyncio
import hashlib
import json
import time
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import ClientSession, web
from openai import AsyncOpenAI

from odradek.infra.bus import MemoryAppender
from odradek.infra.tokens import Claims, mint
from odradek.proxy.app import Proxy, serving
from odradek.proxy.settings import ProxySettings
from odradek.schemas import codec
from odradek.schemas.events import Sealed, Turn, TurnsEvent

KEY = "k" * 32
END = 999
ROLES = {"system": 1000, "user": 1001, "assistant": 1002, "tool": 1003}


def prompt_ids(messages):
    """The stub's chat template: role, UTF-8 bytes, end; then the assistant's role."""
    ids = []
    for message in messages:
        ids += [ROLES[message["role"]], *(message.get("content") or "").encode(), END]
    return [*ids, ROLES["assistant"]]


class StubEngine:
    """vLLM's surface. `mode` makes it misbehave; `gate` makes it wait before its last part."""

    def __init__(self):
        self.mode = "ok"
        self.calls = []
        self.headers = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.version = 7
        self.url = ""

    def app(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        return app

    async def health(self, request):
        return web.Response()

    async def models(self, request):
        return web.json_response({"object": "list", "data": [{"id": "policy"}]})

    def text(self, asked):
        seed = json.dumps([asked["messages"], asked["call"]]).encode()
        return f"né {hashlib.sha256(seed).hexdigest()[:9]}"

    async def chat(self, request):
        asked = await request.json()
        self.calls.append(dict(asked))
        asked["call"] = len(self.calls)
        self.headers.append(request.headers)
        self.entered.set()
        if self.mode == "error":
            error = {"error": {"message": "the prompt is too long", "type": "x", "code": 400}}
            return web.json_response(error, status=400, headers={"X-Request-Id": "r1"})
        if self.mode == "garbage":
            return web.Response(body=b"no json at all", content_type="application/json")
        if self.mode == "drop":
            request.transport.close()
            return web.Response()
        if asked.get("stream"):
            return await self.stream(request, asked)
        await self.gate.wait()
        return web.Response(
            body=json.dumps(self.reply(asked), ensure_ascii=False).encode(),
            content_type="application/json",
        )

    def parts(self, asked):
        text = self.text(asked)
        ids = [*text.encode(), END]
        logprobs = [
            {"token": str(i), "logprob": -i / 1000, "bytes": None, "top_logprobs": []} for i in ids
        ]
        return text, ids, logprobs

    def reply(self, asked):
        text, ids, logprobs = self.parts(asked)
        prompt = prompt_ids(asked["messages"])
        tokens = asked.get("return_token_ids") and self.mode != "no_ids"
        choices = []
        for index in range(asked.get("n") or 1):
            choice = {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": {"content": logprobs} if asked.get("logprobs") else None,
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": ids if tokens else None,
            }
            if asked.get("return_weight_versions") and self.mode != "no_versions":
                choice["weight_versions"] = [{"version": self.version, "start": 0, "end": len(ids)}]
            choices.append(choice)
        extra = 3 if self.mode == "mismatch" else 0
        return {
            "id": f"chat-{asked['call']}",
            "object": "chat.completion",
            "created": 1,
            "model": asked.get("model"),
            "choices": choices,
            "usage": self.usage(prompt, ids, extra),
            "prompt_logprobs": None,
            "prompt_token_ids": prompt if tokens else None,
        }

    def usage(self, prompt, ids, extra=0):
        n = len(ids) + extra
        return {
            "prompt_tokens": len(prompt),
            "total_tokens": len(prompt) + n,
            "completion_tokens": n,
            "prompt_tokens_details": {"cached_tokens": 2},
        }

    def chunks(self, asked):
        """The stream's chunks as vLLM orders them: role, content, finish, usage."""
        text, ids, logprobs = self.parts(asked)
        prompt = prompt_ids(asked["messages"])
        tokens = asked.get("return_token_ids") and self.mode != "no_ids"
        head = {"id": f"chat-{asked['call']}", "object": "chat.completion.chunk", "created": 1}

        def chunk(delta, finish=None, at=None):
            choice = {
                "index": 0,
                "delta": delta,
                "logprobs": {"content": logprobs[at:][: 1 if finish is None else None]}
                if asked.get("logprobs") and at is not None
                else None,
                "finish_reason": finish,
                "token_ids": ids[at:][: 1 if finish is None else None]
                if tokens and at is not None
                else None,
            }
            if finish is not None and asked.get("return_weight_versions"):
                choice["weight_versions"] = [{"version": self.version, "start": 0, "end": len(ids)}]
            return {**head, "model": asked.get("model"), "choices": [choice]}

        first = chunk({"role": "assistant", "content": ""})
        first["prompt_token_ids"] = prompt if tokens else None
        yield first
        at = 0
        for letter in text:
            size = len(letter.encode())
            for n in range(size):
                yield chunk({"content": letter if n == size - 1 else ""}, at=at)
                at += 1
        yield chunk({}, finish="stop", at=at)
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = self.usage(prompt, ids)
            yield {**head, "model": asked.get("model"), "choices": [], "usage": usage}

    async def stream(self, request, asked):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunks = list(self.chunks(asked))
        for n, chunk in enumerate(chunks):
            if n == 4:
                await self.gate.wait()
                if self.mode == "die":
                    request.transport.close()
                    return response
                if self.mode == "stream_error":
                    await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
                    break
            data = json.dumps(chunk, ensure_ascii=False).encode()
            await response.write(b"data: " + data + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


@asynccontextmanager
async def listening(app):
    """An application on a free port of loopback; gives its address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Bench:
    """A proxy over a log in memory, before the stub engine."""

    def __init__(self, engine, log, proxy, url):
        self.engine = engine
        self.log = log
        self.proxy = proxy
        self.url = url
        self.clients = []

    def token(self, episode="e1", **claims):
        return mint(Claims(sub=episode, **claims), [KEY])

    def agent(self, episode="e1", *, max_retries=0, token=None, **claims):
        client = AsyncOpenAI(
            base_url=f"{self.url}/e/{episode}/v1",
            api_key=token or self.token(episode, **claims),
            max_retries=max_retries,
        )
        self.clients.append(client)
        return client

    def direct(self):
        client = AsyncOpenAI(base_url=f"{self.engine.url}/v1", api_key="x", max_retries=0)
        self.clients.append(client)
        return client

    async def ask(self, content="hi", episode="e1", **more):
        messages = more.pop("messages", [{"role": "user", "content": content}])
        client = self.agent(episode)
        return await client.chat.completions.create(model="policy", messages=messages, **more)

    async def post(self, path, body, *, token=None, headers=None):
        """Status, headers and body of a plain request."""
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            ClientSession() as session,
            session.post(self.url + path, data=data, headers={**sent, **(headers or {})}) as answer,
        ):
            return answer.status, answer.headers, await answer.read()

    async def seal(self, episode="e1", **body):
        token = mint(Claims(sub=episode, scope="host"), [KEY])
        status, _, answer = await self.post(f"/e/{episode}/seal", body, token=token)
        return status, json.loads(answer)

    def events(self, episode="e1"):
        return [
            codec.decode(record.value, TurnsEvent)
            for record in self.log.on("rl.turns.v1")
            if record.key == episode
        ]

    def turns(self, episode="e1"):
        return [event for event in self.events(episode) if isinstance(event, Turn)]

    def sealed(self, episode="e1"):
        return [event for event in self.events(episode) if isinstance(event, Sealed)]

    async def until(self, condition, timeout_s=5.0):
        """Wait until something observable holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.005)


@pytest.fixture
async def engine():
    """A stub engine."""
    stub = StubEngine()
    async with listening(stub.app()) as url:
        stub.url = url
        yield stub
        stub.gate.set()


@pytest.fixture
def make(engine):
    """Proxies with settings of the test's own, over a log in memory."""

    @asynccontextmanager
    async def start(log=None, probe=None, **settings):
        log = log or MemoryAppender()
        settings.setdefault("engine_url", engine.url)
        chosen = ProxySettings(port=0, shutdown_s=0.1, **settings)
        keys = [] if chosen.auth == "none" else [KEY]
        proxy = Proxy(chosen, log, keys=keys, log_probe=probe)
        async with serving(proxy) as url:
            bench = Bench(engine, log, proxy, url)
            try:
                yield bench
            finally:
                engine.gate.set()
                for client in bench.clients:
                    await client.close()

    return start


@pytest.fixture
async def bench(make):
    """A proxy with the defaults."""
    async with make() as found:
        yield found


def whole_messages(turns):
    """Each turn's messages put together again from the deltas, by turn id; brute force."""
    history, found = {}, {}
    for turn in turns:
        request = turn.request
        before = history[request.base][: request.kept] if request.base else []
        found[turn.turn_id] = before + [msgspec.json.decode(m) for m in request.messages]
        history[turn.turn_id] = [*found[turn.turn_id], msgspec.json.decode(turn.reply.message)]
    return found


def whole_prompts(turns):
    """Each turn's prompt ids put together again from the deltas, by turn id; brute force."""
    history, found = {}, {}
    for turn in turns:
        prompt = turn.prompt
        before = history[prompt.base][: 4 * prompt.prefix_len] if prompt.base else b""
        found[turn.turn_id] = before + prompt.ids
        history[turn.turn_id] = found[turn.turn_id] + turn.completion.ids
    return found
