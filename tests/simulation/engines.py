"""The engines of an installation, each with troubles of its own, and who samples with which.

What the trainer does to them is the product's own (`weights.fleet`, `weights.client`); only the way
to an engine and the engine itself are simulated. Which of them gets a call follows the proxy's view
of the log (`proxy.policies`, `proxy.serving`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from odradek.infra.bus import BusSettings
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.engines.pool import ranked
from odradek.proxy.engines.versions import EngineVersion
from odradek.schemas.http import engine as surface
from odradek.schemas.http.weights import adapter_name, version_named
from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.errors import EngineDown
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.weights.vllm import VllmEngine

FIRST = "0" * 64
"""The weights that every engine is started with."""
TIMEOUT_S = 12.0
"""How long an engine may say nothing before its trainer counts it as away."""
CALL_S = 2.0
"""How long a call waits for an engine that samples."""


class Had(NamedTuple):
    """What an engine could sample with from a moment on; version 0 after a start."""

    at: float
    version: int
    weights: str


class Engine:
    """One engine: vLLM's weight routes, and how it is.

    Args:
        url: Its address.
        files: By folder, the weights that lie there.
        steady: No fault ever touches it.
    """

    def __init__(self, url: str, files: Mapping[str, str], *, steady: bool) -> None:
        self.url = url
        self.steady = steady
        self.version, self.weights, self.paused = 0, FIRST, False
        self.up = True
        self.refuses = False
        """It answers with an error to whatever changes it."""
        self.hangs_until = 0.0
        self.health_s = self.call_s = 0.002
        self.slow_s = 0.0
        """How long each answer takes."""
        self.life = 0
        self.had = [Had(0.0, 0, FIRST)]
        self.adapters: dict[int, str] = {}
        """Weights of the adapters that it has, by version; the newest counts as its own."""
        self.most_adapters = 0
        """How many it has had at once."""
        self._files = files

    @property
    def samples(self) -> bool:
        """Whether a call that comes now is answered."""
        return self.up and not self.paused and asyncio.get_running_loop().time() > self.hangs_until

    def die(self) -> None:
        """Its process ends, and with it what it was sent."""
        self.up = False
        self.life += 1

    def start(self) -> None:
        """Its supervisor starts it again, with its first weights."""
        self.version, self.weights, self.paused, self.up = 0, FIRST, False, True
        self.adapters.clear()
        self._note()

    def mend(self) -> None:
        """Nothing is wrong with it any more, unless it is down."""
        self.refuses, self.hangs_until, self.slow_s = False, 0.0, 0.0

    async def answer(self, path: str, request: dict[str, Any]) -> tuple[int, Any]:
        """Status and body. Raises EngineDown where its process ends meanwhile, or is not there."""
        loop, life = asyncio.get_running_loop(), self.life
        took_s = self.health_s if path == "/health" else self.call_s
        await asyncio.sleep(took_s + self.slow_s)
        while (left := self.hangs_until - loop.time()) > 0 and self.up and life == self.life:
            await asyncio.sleep(min(left, 0.5))
        if not self.up or life != self.life:
            raise EngineDown(f"no engine answers at {self.url}")
        if path == "/weight_info":
            return 200, {"weight_version": str(self.version) if self.version else "default"}
        if path == surface.MODELS.path:
            names = [adapter_name("policy", version) for version in self.adapters]
            return 200, {"data": [{"id": name} for name in ("policy", *names)]}
        if self.refuses and path != "/health":
            return 500, "refused"
        if path in {surface.LOAD_ADAPTER.path, surface.UNLOAD_ADAPTER.path}:
            return self._adapt(path, request["json"])
        if path == "/pause":
            self.paused = True
        elif path == "/collective_rpc":
            self.weights = self._files[request["json"]["kwargs"]["weights_path"]]
        elif path == "/update_weight_version":
            self.version = int(request["json"]["new_version"])
        elif path == "/resume":
            self.paused = False
        self._note()
        return 200, {}

    def _adapt(self, path: str, request: dict[str, str]) -> tuple[int, Any]:
        version = version_named("policy", request["lora_name"])
        assert version is not None
        if path == surface.UNLOAD_ADAPTER.path:
            return (200, {}) if self.adapters.pop(version, None) else (404, "no such adapter")
        if version in self.adapters:
            return 400, "it has been loaded already"
        self.adapters[version] = self._files[request["lora_path"]]
        self.most_adapters = max(self.most_adapters, len(self.adapters))
        self.version = max(self.adapters)
        self.weights = self.adapters[self.version]
        self._note()
        return 200, {}

    def _note(self) -> None:
        last = self.had[-1]
        if not self.paused and (self.version, self.weights) != (last.version, last.weights):
            now = asyncio.get_running_loop().time()
            self.had.append(Had(now, self.version, self.weights))


class Client(VllmEngine):
    """The product's client of an engine, on a simulated way to it."""

    def __init__(self, engine: Engine, at: Callable[[str], None]) -> None:
        super().__init__(engine.url, quiet_s=TIMEOUT_S, at=at)
        self._engine = engine

    async def ask(self, method: str, path: str, within_s: float, **request: Any) -> tuple[int, Any]:
        del method
        try:
            async with asyncio.timeout(within_s):
                return await self._engine.answer(path, request)
        except TimeoutError as error:
            raise EngineDown(f"no engine answers at {self.url}") from error


class Engines:
    """All of an installation, and its proxy's view of them.

    Args:
        number: How many.
        steady: Whether the first of them is never in trouble.
        gone: Whether the last of them, once it has died, stays away.
        adapters: Whether they are sent adapters.
    """

    def __init__(self, number: int, *, steady: bool, gone: bool, adapters: bool = False) -> None:
        self.adapters = adapters
        self.files: dict[str, str] = {}
        """Weights that the trainer has written, by folder: a disk that all of them can read."""
        self.all = [
            Engine(f"http://engine-{at}", self.files, steady=steady and at == 0)
            for at in range(number)
        ]
        if number == 1:
            # So what takes rare seeds to be seen is where it was before there were several.
            self.all[0].health_s, self.all[0].call_s = 0.0, 0.02
        self.gone = self.all[-1] if gone and number > 1 else None
        self._policies = PolicyVersions("policy")
        self._serving = {
            engine.url: EngineVersion(engine.url, self._policies) for engine in self.all
        }
        self._lives = dict.fromkeys(self._serving, 0)

    @property
    def troubled(self) -> list[Engine]:
        """Those that faults may touch."""
        return [engine for engine in self.all if not engine.steady]

    async def follow(self, bus: BusSettings) -> None:
        """Read the policies for ever, as a proxy does that has a choice."""
        if len(self.all) > 1 or self.adapters:
            await self._policies.follow(bus)

    def client(self, engine: Engine, settings: TrainerSettings, at: Callable[[str], None]) -> Any:
        """The trainer's client of an engine."""
        host = Client(engine, at)
        if not self.adapters:
            return host
        kept = settings.max_staleness + 1
        return AdapterClient(host, AdapterTerms("policy", settings.lora_rank, kept), at=at)

    async def sample(self, episode: str) -> int | None:
        """Which version answers a call of an episode; None where no engine does in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CALL_S
        while loop.time() < until:
            there = {engine.url: engine for engine in self.all if engine.samples}
            for url, engine in there.items():
                if engine.life != self._lives[url]:
                    self._lives[url] = engine.life
                    self._serving[url].lost()
                    self._serving[url].answered(engine.version)
                elif self._serving[url].doubtful:
                    self._serving[url].answered(engine.version)
            order = sorted(ranked(there, episode), key=lambda url: self._serving[url].lags)
            if order:
                found = self._answered(there[order[0]])
                if found is not None:
                    return found
            await asyncio.sleep(0.2)
        return None

    def _answered(self, engine: Engine) -> int | None:
        """The version that a call to an engine is of; None where it lacks what the call asks for."""
        serving = self._serving[engine.url]
        sent = serving.sent()
        if not sent.adapter:
            return engine.version if not self.adapters else 0
        if sent.version in engine.adapters:
            return sent.version
        serving.lost()
        serving.answered(max(engine.adapters, default=0))
        return None

    def peace(self) -> None:
        """Nobody is in trouble any more; who is down is started, but for the one that is gone."""
        for engine in self.all:
            engine.mend()
            if not engine.up and engine is not self.gone:
                engine.start()
