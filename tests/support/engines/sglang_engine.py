"""An engine with SGLang's surface, as its documentation has it: no real server was asked.

Its tokens are those of the stub engine. What it loads, it notes as an engine that takes weights does.
"""

import asyncio
import json
from pathlib import Path

from aiohttp import web

from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.commit.tensor_files import WEIGHTS
from tests.support.engines.stub_engine import StubEngine

NO_STREAMED_IDS = "return_token_ids is not supported with streaming. Please set stream=false."


class SglangStub(StubEngine):
    """SGLang's routes.

    Attributes:
        old: It has only the older names of routes, and no pause.
        ids: Whether it knows `return_token_ids`.
        spans: Whether replies say which version sampled which token, or only their last one.
        arrived: Set once a chat is there.
        asked: The routes of the trainer's calls, in order.
        served: Every pair of version and weights that could have sampled a token.
        refuses_load: What it says of a load, "" if it takes one.
    """

    def __init__(self, *, old=False, ids=True, spans=True):
        super().__init__()
        self.old, self.ids, self.spans = old, ids, spans
        self.label = "default"
        self.weights = "of the start"
        self.paused = False
        self.resumed = asyncio.Event()
        self.resumed.set()
        self.arrived = asyncio.Event()
        self.asked = []
        self.served = [(self.label, self.weights)]
        self.refuses_load = ""
        self.matched = None
        self.adapters = {}
        """Folder of each adapter, by name."""

    def app(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.sampling_health)
        app.router.add_get("/get_model_info", self.info)
        app.router.add_post("/update_weights_from_disk", self.update)
        if not self.old:
            app.router.add_get("/model_info", self.info)
            app.router.add_post("/pause_generation", self.pause)
            app.router.add_post("/continue_generation", self.resume)
            app.router.add_post("/load_lora_adapter", self.load_adapter)
            app.router.add_post("/unload_lora_adapter", self.unload_adapter)
        return app

    async def models(self, request):
        return web.json_response({"data": [{"id": name} for name in ("policy", *self.adapters)]})

    async def load_adapter(self, request):
        body = await request.json()
        self.asked.append(f"load {body['lora_name']}")
        if self.refuses_load:
            said = {"success": False, "error_message": self.refuses_load}
            return web.json_response(said, status=400)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.json_response({"success": True, "loaded_adapters": self.adapters})

    async def unload_adapter(self, request):
        body = await request.json()
        self.asked.append(f"unload {body['lora_name']}")
        del self.adapters[body["lora_name"]]
        return web.json_response({"success": True, "loaded_adapters": self.adapters})

    async def sampling_health(self, request):
        """It samples a token to know: nothing while it is paused."""
        return web.Response(status=503 if self.paused else 200)

    async def info(self, request):
        self.infos += 1
        return web.json_response(
            {
                "model_path": "tiny",
                "tokenizer_path": "tiny",
                "is_generation": True,
                "weight_version": self.label,
            }
        )

    async def pause(self, request):
        body = await request.json()
        self.asked.append(f"pause {body['mode']}")
        self.paused = True
        self.resumed.clear()
        return web.json_response({"status": "ok", "message": "paused"})

    async def resume(self, request):
        self.asked.append("continue")
        self.paused = False
        self._note()
        self.resumed.set()
        return web.json_response({"status": "ok", "message": "continued"})

    async def update(self, request):
        body = await request.json()
        self.asked.append("update")
        if self.refuses_load:
            said = {"success": False, "message": self.refuses_load, "num_paused_requests": 0}
            return web.json_response(said, status=400)
        assert body["flush_cache"]
        self.weights = sha256_of(Path(body["model_path"]) / WEIGHTS)
        self.label = body["weight_version"]
        if not self.paused:
            self._note()
        return web.json_response({"success": True, "message": "ok", "num_paused_requests": 0})

    def _note(self):
        if (self.label, self.weights) != self.served[-1]:
            self.served.append((self.label, self.weights))

    def probed(self, asked):
        """A reply to who asks for the likeliest tokens, with its ids."""
        made = super().probed(asked)
        if not (self.ids and asked.get("return_token_ids")):
            return made
        value = json.loads(made.body)
        value["choices"][0]["token_ids"] = [0]
        return web.json_response(value)

    def tokens(self, asked):
        return self.ids and asked.get("return_token_ids")

    async def chat(self, request):
        asked = await request.json()
        adapter = asked.get("lora_path")
        if adapter is not None and adapter not in self.adapters:
            error = {"object": "error", "message": f"adapters that are not loaded: {adapter}"}
            return web.json_response(error | {"code": 400}, status=400)
        if asked.get("stream") and self.tokens(asked):
            error = {"object": "error", "message": NO_STREAMED_IDS, "type": "BadRequest"}
            return web.json_response(error | {"code": 400}, status=400)
        began = self.label
        self.arrived.set()
        await self.resumed.wait()
        self.began = began
        return await super().chat(request)

    def choice(self, asked, index):
        choice, ids = super().choice(asked, index)
        choice.pop("weight_versions", None)
        choice.pop("stop_reason")
        if not self.tokens(asked):
            choice.pop("token_ids")
        choice["matched_stop"] = 999 if self.matched is None else self.matched
        return choice, ids

    def reply(self, asked):
        value = super().reply(asked)
        prompt = value.pop("prompt_token_ids")
        value["usage"]["prompt_tokens_details"] = None
        for choice in value["choices"]:
            if self.tokens(asked):
                choice["prompt_token_ids"] = prompt
        return value | {"metadata": self.metadata(value["choices"][0])}

    def metadata(self, choice):
        """One version for the whole reply; two where it was paused after its first token."""
        told = {"weight_version": self.label}
        if self.spans:
            n = len(choice.get("token_ids") or ())
            told["weight_versions"] = (
                [{"version": self.label, "start": 0, "end": n}]
                if self.began == self.label
                else [
                    {"version": self.began, "start": 0, "end": 1},
                    {"version": self.label, "start": 1, "end": n},
                ]
            )
        return told

    def text_reply(self, asked):
        self.began = self.label
        value = super().text_reply(asked)
        for choice in value["choices"]:
            choice.pop("weight_versions", None)
        return value | {"metadata": self.metadata(value["choices"][0])}
