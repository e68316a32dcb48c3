"""The small engine: the surface of `schemas/http/engine`, over a Hugging Face model.

For two cores and for tests. What it leaves out on purpose: continuous batching (a batch ends with
its longest row), prefix caching, sampling other than by temperature, and authentication.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import torch
from aiohttp import web

from odradek.schemas.http import engine as surface
from odradek.schemas.http import weights
from odradek.schemas.http.weights import version_named
from odradek.trainer.engine import chat, completions
from odradek.trainer.engine.adapters import LoadedAdapter
from odradek.trainer.engine.batcher import Batcher
from odradek.trainer.engine.decode import Sampler, SampleRequest
from odradek.trainer.engine.rendering import Renderer
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.errors import BadSettings, EngineDown, UnsupportedRequest
from odradek.trainer.models import load_model, load_tokenizer

log = logging.getLogger("odradek")

Body = TypeVar("Body")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY: Final = 8 * 1024 * 1024


def _error(status: int, message: str, kind: str) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    retry = {"Retry-After": "1"} if status == 503 else None
    return web.json_response(body, status=status, headers=retry)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Mistakes in the shape that OpenAI's clients read."""
    try:
        return await handler(request)
    except UnsupportedRequest as error:
        return _error(400, str(error), "BadRequestError")
    except EngineDown as error:
        return _error(503, str(error), "ServiceUnavailableError")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error(error.status, error.reason, "NotFoundError")


class SmallEngine:
    """Routes over one batcher."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load tokenizer and model. Raises NoModel, NoTokenizer, BadSettings."""
        if not settings.model:
            raise BadSettings("no model is named: give --model FOLDER or ODRADEK_ENGINE_MODEL")
        torch.set_num_threads(1)
        self.settings = settings
        self._created = int(time.time())
        self._tokenizer = load_tokenizer(settings.model)
        model = load_model(settings.model, device=settings.device, dtype=settings.dtype)
        self._longest = int(model.config.get_text_config().max_position_embeddings)
        self._renderer = Renderer(self._tokenizer, name=settings.name, longest=self._longest)
        self.batcher = Batcher(
            Sampler(
                model,
                pad_id=self._tokenizer.pad_token_id or 0,
                end_ids=_end_ids(model, self._tokenizer),
                seed=settings.seed,
            ),
        )
        self._sampling: asyncio.Task[None] | None = None

    @property
    def newest(self) -> int:
        """The newest version that it serves, as weights or as an adapter."""
        return max([self.batcher.version, *(a.version for a in self.batcher.adapters.values())])

    def app(self) -> web.Application:
        """The application; sampling runs as long as it does."""
        app = web.Application(middlewares=[_errors], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.post(surface.CHAT.path, self._chat),
                web.post(surface.RENDER.path, self._render),
                web.post(surface.COMPLETIONS.path, self._complete),
                web.post(surface.COUNT.path, self._tokenize),
                web.get(surface.MODELS.path, self._models),
                web.get(surface.HEALTH.path, self._health),
                web.post(surface.PAUSE.path, self._pause),
                web.post(surface.RESUME.path, self._resume),
                web.get("/is_paused", self._is_paused),
                web.post(surface.LOAD.path, self._collective_rpc),
                web.post(surface.NAME.path, self._update_weight_version),
                web.get(surface.VERSION.path, self._weight_info),
                web.post(surface.RESET.path, self._reset_prefix_cache),
                web.post(surface.LOAD_ADAPTER.path, self._load_adapter),
                web.post(surface.UNLOAD_ADAPTER.path, self._unload_adapter),
            ]
        )
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        self._sampling = asyncio.create_task(self.batcher.run())

    async def _stop(self, _: web.Application) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        request = chat.parse(await _json(http), self.settings.name)
        prompt = self._renderer.prompt(request)
        sample_request = chat.sample_request_of(
            request, prompt, default=self.settings.max_tokens, longest=self._longest
        )
        sample_request = replace(sample_request, adapter=self._adapter(request.model))
        writer = chat.ChatWriter(
            request,
            reply_id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            prompt=prompt,
            tokenizer=self._tokenizer,
        )
        return await self._answer(http, writer, [sample_request] * request.n, stream=request.stream)

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        request = completions.parse(await _json(http), self.settings.name)
        prompts = [self._renderer.text(prompt) for prompt in request.prompts]
        options, adapter = request.options, self._adapter(request.options.model)
        sample_requests = [
            replace(
                chat.sample_request_of(
                    options, ids, default=self.settings.max_tokens, longest=self._longest
                ),
                adapter=adapter,
            )
            for ids in prompts
            for _ in range(options.n)
        ]
        writer = completions.CompletionWriter(
            request,
            reply_id=f"cmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            prompts=prompts,
            tokenizer=self._tokenizer,
        )
        return await self._answer(http, writer, sample_requests, stream=options.stream)

    def _adapter(self, model: str) -> LoadedAdapter | None:
        """The adapter of that name; None for the model itself, whatever it is called."""
        adapter = self.batcher.adapters.get(model)
        if adapter is None and version_named(self.settings.name, model) is not None:
            raise web.HTTPNotFound(reason=f"the model {model!r} does not exist")
        return adapter

    async def _answer(
        self,
        http: web.Request,
        writer: chat.ChatWriter | completions.CompletionWriter,
        sample_requests: list[SampleRequest],
        *,
        stream: bool,
    ) -> web.StreamResponse:
        # One after the other in the queue: they mostly meet in one batch.
        answers = list(await asyncio.gather(*map(self.batcher.sample, sample_requests)))
        if not stream:
            return _reply(writer.whole(answers))
        return await _stream(http, writer.chunks(answers))

    async def _render(self, http: web.Request) -> web.Response:
        return _reply(self._renderer.rendered(await _json(http)))

    async def _tokenize(self, http: web.Request) -> web.Response:
        return _reply(self._renderer.tokenized(await _json(http)))

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self.settings.name,
            "object": "model",
            "created": self._created,
            "owned_by": "odradek",
            "root": self.settings.name,
            "max_model_len": self._longest,
        }
        loaded = [{**card, "id": name, "root": name} for name in self.batcher.adapters]
        return web.json_response({"object": "list", "data": [card, *loaded]})

    async def _health(self, _: web.Request) -> web.Response:
        alive = self._sampling is not None and not self._sampling.done()
        return web.Response(status=200 if alive else 503)

    async def _pause(self, _: web.Request) -> web.Response:
        await self.batcher.pause()
        return web.json_response({"status": "paused"})

    async def _resume(self, _: web.Request) -> web.Response:
        self.batcher.resume()
        return web.json_response({"status": "resumed"})

    async def _is_paused(self, _: web.Request) -> web.Response:
        return web.json_response({"is_paused": self.batcher.paused})

    async def _collective_rpc(self, http: web.Request) -> web.Response:
        body = await _json(http)
        if not isinstance(body, dict) or body.get("method") != "reload_weights":
            raise UnsupportedRequest("the small engine knows the method `reload_weights` only")
        path = (body.get("kwargs") or {}).get("weights_path")
        if not isinstance(path, str) or "\0" in path:
            raise UnsupportedRequest("`kwargs.weights_path` must be a folder")
        await self.batcher.load(Path(path))
        return web.json_response({"results": [None]})

    async def _update_weight_version(self, http: web.Request) -> web.Response:
        body = await _json(http)
        version = body.get("new_version") if isinstance(body, dict) else None
        if isinstance(version, str) and version.isdecimal():
            version = int(version)
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise UnsupportedRequest("`new_version` must be a whole number")
        await self.batcher.rename(version)
        log.info("serving version %d", version)
        return web.json_response({"success": True, "new_version": str(version)})

    async def _weight_info(self, _: web.Request) -> web.Response:
        return web.json_response({"weight_version": str(self.batcher.version)})

    async def _load_adapter(self, http: web.Request) -> web.Response:
        request = await _body(http, weights.AdapterLoad)
        if request.lora_name == self.settings.name or "\0" in request.lora_path:
            raise UnsupportedRequest("`lora_name` is the model's own, or `lora_path` no folder")
        await self.batcher.load_adapter(request.lora_name, Path(request.lora_path))
        log.info("serving adapter %s", request.lora_name)
        return web.json_response({"success": True})

    async def _unload_adapter(self, http: web.Request) -> web.Response:
        request = await _body(http, weights.AdapterUnload)
        if self.batcher.adapters.pop(request.lora_name, None) is None:
            raise web.HTTPNotFound(reason=f"the adapter {request.lora_name!r} is not there")
        return web.json_response({"success": True})

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "no prefix is cached"})


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every id at which a reply ends."""
    eos = model.generation_config.eos_token_id
    ids = set(eos if isinstance(eos, list) else [eos])
    return sorted(token for token in ids | {tokenizer.eos_token_id} if token is not None)


async def _json(http: web.Request) -> Any:
    try:
        return await http.json(loads=json.loads)
    except (ValueError, RecursionError):
        raise UnsupportedRequest("the body is not JSON") from None


async def _body(http: web.Request, kind: type[Body]) -> Body:
    """The body in the shape of a type."""
    try:
        return msgspec.convert(await _json(http), kind)
    except msgspec.ValidationError as error:
        raise UnsupportedRequest(f"the body cannot be read: {error}") from None


async def _stream(http: web.Request, chunks: Iterator[dict[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(http)
    for chunk in chunks:
        await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _reply(body: dict[str, Any]) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
