"""An engine with vLLM's surface whose tokens anyone can compute again: the bytes of what it says.

What it says is a digest of the conversation, or what `script` holds: a list of messages (content,
reasoning, tool_calls), of which each call takes the one at its place.
"""

import asyncio
import hashlib
import json
import math
from contextlib import asynccontextmanager

from aiohttp import web

from odradek.infra.runtime.environment import address
from odradek.schemas.http import engine as surface

END, CALL, ARGUMENTS, THINK, THOUGHT = 999, 500, 501, 502, 503
FAILURES = {
    "no_route": (404, "application/json", b'{"detail": "Not Found"}'),
    "busy": (503, "application/json", b'{"object": "error", "message": "it is paused"}'),
    "broken": (500, "text/plain", b"Internal Server Error"),
}
ROLES = {"system": 1000, "developer": 1000, "user": 1001, "assistant": 1002, "tool": 1003}


def prompt_ids(messages, *, answer=True):
    """The stub's chat template: role, what is said, end; then the assistant's role."""
    ids = []
    for message in messages:
        ids += [ROLES[message["role"]], *said_ids(message), END]
    return [*ids, ROLES["assistant"]] if answer else ids


def said_ids(message):
    """The tokens of a message: of its reasoning, its content and its tool calls."""
    return [token for _, tokens in pieces(message) for token in tokens]


def pieces(message):
    """A message as deltas of a stream, each with its tokens."""
    reasoning = message.get("reasoning")
    for place, letter in enumerate(reasoning or ""):
        ids = [THINK] * (place == 0) + [*letter.encode()]
        yield {"reasoning": letter}, ids + [THOUGHT] * (place == len(reasoning) - 1)
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text") or part["image_url"]["url"] for part in content)
    for letter in content:
        encoded = letter.encode()
        for n, byte in enumerate(encoded):
            yield {"content": letter if n == len(encoded) - 1 else ""}, [byte]
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        head = {"id": call["id"], "type": "function"}
        opened = {**head, "function": {"name": function["name"], "arguments": ""}}
        yield (
            {"tool_calls": [{"index": index, **opened}]},
            [CALL, *function["name"].encode(), ARGUMENTS],
        )
        for letter in function["arguments"]:
            more = {"index": index, "function": {"arguments": letter}}
            yield {"tool_calls": [more]}, [*letter.encode()]


def joined(lists):
    return [entry for one in lists for entry in one]


def tool_call(name, arguments, named="call-1"):
    """A tool call of a scripted message."""
    function = {"name": name, "arguments": arguments}
    return {"id": named, "type": "function", "function": function}


class StubEngine:
    """vLLM's surface. `mode` makes it misbehave; `gate` makes it wait before its last part.

    `head` makes it wait before the first of a stream.
    """

    def __init__(self):
        self.mode = "ok"
        self.tops = "processed"
        self.probes = []
        self.calls = []
        self.headers = []
        self.script = []
        self.refuses = lambda _: ""
        """What of a request it refuses, by name, or in words of its own as bytes; "" if nothing."""
        self.picky = False
        """Whether it refuses the same in questions about its log probabilities."""
        self.status = 200
        """Of a whole chat."""
        self.stop_reason = None
        self.finish = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.head = asyncio.Event()
        self.head.set()
        self.entered = asyncio.Event()
        self.renders = asyncio.Event()
        self.renders.set()
        self.version = 7
        self.infos = 0
        self.template = prompt_ids
        self.takes_ids = True
        self.rendered = []
        self.tokenized = []
        self.counted = 0
        self.url = ""

    def app(self):
        app = web.Application()
        app.router.add_post(surface.CHAT.path, self.chat)
        app.router.add_post(surface.RENDER.path, self.render)
        app.router.add_post(surface.COMPLETIONS.path, self.complete)
        app.router.add_post(surface.COUNT.path, self.tokenize)
        app.router.add_get(surface.MODELS.path, self.models)
        app.router.add_get(surface.HEALTH.path, self.health)
        app.router.add_get(surface.VERSION.path, self.weight_info)
        return app

    async def health(self, request):
        return web.Response()

    async def weight_info(self, request):
        """What it serves, as vLLM says it: a name that nobody gave is `default`."""
        self.infos += 1
        if self.mode == "no_info":
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response({"weight_version": str(self.version or "default")})

    async def models(self, request):
        return web.json_response({"object": "list", "data": [{"id": "policy", "created": 1}]})

    async def tokenize(self, request):
        if self.mode == "error":
            return web.json_response({"error": {"message": "no such thing"}}, status=404)
        if self.mode in FAILURES:
            return self.failure()
        asked = await request.json()
        self.tokenized.append(asked)
        self.counted += 1
        await self.gate.wait()
        answer = asked.get("add_generation_prompt", True)
        return web.json_response({"count": len(prompt_ids(asked["messages"], answer=answer))})

    async def render(self, request):
        """VLLM's route: a chat request as ids."""
        asked = await request.json()
        self.rendered.append(asked)
        await self.renders.wait()
        if self.mode == "no_render":
            return web.json_response({"error": {"message": "Not Found"}}, status=404)
        answer = asked.get("add_generation_prompt", True)
        ids = self.template(asked["messages"], answer=answer)
        return web.json_response({"request_id": "r1", "token_ids": ids, "sampling_params": {}})

    def prompt(self, asked):
        """The prompt's ids: those that came with the request, as vLLM has it, or the template's."""
        told = (asked.get("kv_transfer_params") or {}).get("prompt_token_ids")
        return told if told and self.takes_ids else self.template(asked["messages"])

    def text(self, asked, index=0):
        seed = json.dumps([asked["messages"], asked["call"]]).encode()
        return f"né {hashlib.sha256(seed).hexdigest()[:9]}" + (str(index) if index else "")

    def said(self, asked, index=0):
        if callable(self.script):
            return {"role": "assistant", "content": None, **self.script(asked)}
        if self.script:
            message = self.script[(asked["call"] - 1) % len(self.script)]
            return {"role": "assistant", "content": None, **message}
        return {"role": "assistant", "content": self.text(asked, index), "refusal": None}

    def probed(self, asked):
        """The answer to who asks for the likeliest tokens: as vLLM has it, or in `tops`' way."""
        warmth = 1.0 if self.tops == "raw" else asked["temperature"]
        logits = [-n * 0.7 / warmth for n in range(9)]
        shift = 0.0 if self.tops == "logits" else math.log(sum(map(math.exp, logits)))
        top = [] if self.tops == "none" else logits[: asked["top_logprobs"]]
        told = [{"token": f"t{n}", "logprob": value - shift} for n, value in enumerate(top)]
        content = [{"token": "t0", "logprob": 0.0, "top_logprobs": told}]
        return web.json_response({"choices": [{"logprobs": {"content": content}}]})

    async def take(self, request):
        """The request, or the answer to it where the engine misbehaves."""
        asked = await request.json()
        if asked.get("user") == "odradek-probe":
            self.probes.append(asked)
            if self.picky and (names := self.refuses(asked)):
                return asked, self.refusal(names)
            return asked, self.failure() if self.mode in FAILURES else self.probed(asked)
        self.calls.append(dict(asked))
        asked["call"] = len(self.calls)
        self.headers.append(request.headers)
        self.entered.set()
        if names := self.refuses(asked):
            return asked, self.refusal(names)
        if self.mode == "error":
            error = {"error": {"message": "the prompt is too long", "type": "x", "code": 400}}
            return asked, web.json_response(error, status=400, headers={"X-Request-Id": "r1"})
        if self.mode in FAILURES:
            return asked, self.failure()
        if self.mode == "garbage":
            return asked, web.Response(body=b"no json at all", content_type="application/json")
        if self.mode == "drop":
            request.transport.close()
            return asked, web.Response()
        return asked, None

    def refusal(self, said):
        """A request that it cannot read."""
        if isinstance(said, bytes):
            return web.Response(body=said, status=422, content_type="application/json")
        error = {"error": {"message": f"cannot read: {said}", "type": "x", "code": 400}}
        return web.json_response(error, status=400)

    def failure(self):
        """What engines, and servers before them, answer in no shape of OpenAI's."""
        status, kind, body = FAILURES[self.mode]
        return web.Response(status=status, body=body, content_type=kind)

    async def chat(self, request):
        asked, answer = await self.take(request)
        if answer is not None:
            return answer
        if asked.get("stream"):
            return await self.stream(request, list(self.chunks(asked)))
        await self.gate.wait()
        return web.Response(
            status=self.status,
            body=json.dumps(self.reply(asked), ensure_ascii=False).encode(),
            content_type="application/json",
        )

    async def complete(self, request):
        """Text completions."""
        asked, answer = await self.take(request)
        if answer is not None:
            return answer
        if asked.get("stream"):
            return await self.stream(request, list(self.text_chunks(asked)))
        return web.json_response(self.text_reply(asked))

    def ending(self, message):
        return self.finish or ("tool_calls" if message.get("tool_calls") else "stop")

    def logprobs(self, ids):
        return [
            {"token": str(i), "logprob": -i / 1000, "bytes": None, "top_logprobs": []} for i in ids
        ]

    def choice(self, asked, index):
        message = self.said(asked, index)
        ids = [*said_ids(message), END]
        choice = {
            "index": index,
            "message": message,
            "logprobs": {"content": self.logprobs(ids)} if asked.get("logprobs") else None,
            "finish_reason": self.ending(message),
            "stop_reason": self.stop_reason,
            "token_ids": ids if self.tokens(asked) else None,
        }
        if asked.get("return_weight_versions") and self.mode != "no_versions":
            choice["weight_versions"] = [{"version": self.version, "start": 0, "end": len(ids)}]
        return choice, ids

    def tokens(self, asked):
        return asked.get("return_token_ids") and self.mode != "no_ids"

    def reply(self, asked):
        prompt = self.prompt(asked)
        found = [self.choice(asked, index) for index in range(asked.get("n") or 1)]
        extra = 3 if self.mode == "mismatch" else 0
        return {
            "id": f"chat-{asked['call']}",
            "object": "chat.completion",
            "created": 1,
            "model": asked.get("model"),
            "choices": [choice for choice, _ in found],
            "usage": self.usage(prompt, joined(ids for _, ids in found), extra),
            "prompt_logprobs": None,
            "prompt_token_ids": prompt if self.tokens(asked) else None,
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
        """The stream's chunks as vLLM orders them: role, what is said, finish, usage."""
        prompt = self.prompt(asked)
        head = {"id": f"chat-{asked['call']}", "object": "chat.completion.chunk", "created": 1}
        head["model"] = asked.get("model")
        n = asked.get("n") or 1

        def chunk(index, delta, ids, finish=None, total=0):
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": {"content": self.logprobs(ids)}
                if asked.get("logprobs") and ids is not None
                else None,
                "finish_reason": finish,
                "token_ids": ids if self.tokens(asked) else None,
            }
            if finish is not None:
                choice["stop_reason"] = self.stop_reason
                if asked.get("return_weight_versions"):
                    spans = [{"version": self.version, "start": 0, "end": total}]
                    choice["weight_versions"] = spans
            return {**head, "choices": [choice]}

        for index in range(n):
            first = chunk(index, {"role": "assistant", "content": ""}, None)
            if index == 0:
                first["prompt_token_ids"] = prompt if self.tokens(asked) else None
            yield first
        sampled = []
        for index in range(n):
            message = self.said(asked, index)
            total = len(said_ids(message)) + 1
            for delta, ids in pieces(message):
                yield chunk(index, delta, ids)
            yield chunk(index, {}, [END], self.ending(message), total)
            sampled += [0] * total
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield {**head, "choices": [], "usage": self.usage(prompt, sampled)}

    def prompts(self, asked):
        """A text completion's prompts, each as its ids."""
        prompt = asked["prompt"]
        if isinstance(prompt, str):
            return [[*prompt.encode()]]
        if all(isinstance(one, int) for one in prompt):
            return [prompt]
        return [[*one.encode()] if isinstance(one, str) else one for one in prompt]

    def text_choices(self, asked):
        n = asked.get("n") or 1
        for place, prompt in enumerate(self.prompts(asked)):
            for sample in range(n):
                index = place * n + sample
                text = self.text({"messages": prompt, "call": asked["call"]}, sample)
                yield index, prompt, text, [*text.encode(), END]

    def text_choice(self, asked, index, text, ids, finish, prompt=None):
        values = [-i / 1000 for i in ids]
        told = {"text_offset": [], "token_logprobs": values, "tokens": [], "top_logprobs": []}
        choice = {
            "index": index,
            "text": text,
            "logprobs": told if asked.get("logprobs") is not None else None,
            "finish_reason": finish,
            "stop_reason": None,
            "token_ids": ids if self.tokens(asked) else None,
            "prompt_token_ids": prompt if self.tokens(asked) else None,
        }
        if asked.get("return_weight_versions") and finish:
            choice["weight_versions"] = [{"version": self.version, "start": 0, "end": 3}]
        return choice

    def text_reply(self, asked):
        found = list(self.text_choices(asked))
        return {
            "id": f"cmpl-{asked['call']}",
            "object": "text_completion",
            "created": 1,
            "model": asked.get("model"),
            "choices": [
                self.text_choice(asked, index, text, ids, "stop", prompt)
                for index, prompt, text, ids in found
            ],
            "usage": self.usage(joined(self.prompts(asked)), joined(ids for *_, ids in found)),
        }

    def text_chunks(self, asked):
        head = {"id": f"cmpl-{asked['call']}", "object": "text_completion", "created": 1}
        head["model"] = asked.get("model")
        sampled = []
        for index, prompt, text, ids in self.text_choices(asked):
            sampled += ids
            letters = list(text)
            for place, letter in enumerate(letters):
                first = prompt if place == 0 else None
                told = self.text_choice(asked, index, letter, [*letter.encode()], None, first)
                yield {**head, "choices": [told]}
            yield {**head, "choices": [self.text_choice(asked, index, "", [END], "stop")]}
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = self.usage(joined(self.prompts(asked)), sampled)
            yield {**head, "choices": [], "usage": usage}

    async def stream(self, request, chunks):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await self.head.wait()
        await response.prepare(request)
        events = [
            b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks
        ]
        for n, event in enumerate(events):
            if n == 4:
                await self.gate.wait()
                if self.mode == "die":
                    request.transport.close()
                    return response
                if self.mode == "stream_error":
                    await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
                    break
            await response.write(event)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


@asynccontextmanager
async def listening(app, host="127.0.0.1"):
    """An application on a free port of loopback; gives its address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    try:
        yield address(host, runner.addresses[0][1])
    finally:
        await runner.cleanup()
