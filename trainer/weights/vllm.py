"""vLLM in its development mode, and the small engine, which has the same routes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins

from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.http import engine, weights
from odradek.trainer.weights.client import (
    ASK_S,
    LOAD_S,
    AdapterRoom,
    HttpEngine,
    version_of,
)

RESET: Final = to_builtins(weights.ResetTerms())
"""Without the first, a reset does nothing while any request holds a block, as each that is kept
over the pause does, and answers 200 all the same; the second is for caches outside the engine. The
proxy salts its calls with the version besides, which needs no reset to succeed."""

INFO: Final = "/server_info"
"""Where vLLM prints its own configuration."""

log = logging.getLogger("odradek")


class VllmEngine(HttpEngine):
    """Implements `EngineClient`.

    Args:
        url: Its root.
        quiet_s: How long it may take over anything but a load.
        at: Called at each crash point.
    """

    needs = "vLLM needs VLLM_SERVER_DEV_MODE=1"
    needs_for_adapters = (
        "vLLM needs --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1: `odradek engine vllm` "
        "gives both where ODRADEK_TRAINER_LORA_RANK is set"
    )
    loads = frozenset({engine.LOAD.path})
    optional = frozenset({engine.NAME.path})
    """A vLLM without version spans lacks it: the proxy infers versions."""

    def __init__(
        self, url: str, *, quiet_s: float = LOAD_S, at: Callable[[str], None] = crash_point
    ) -> None:
        super().__init__(url, quiet_s=quiet_s, at=at)
        self._keeps_cache = False

    async def answers(self) -> None:
        """See `EngineClient`."""
        await self.ask(engine.HEALTH.method, engine.HEALTH.path, ASK_S)

    async def serves(self) -> int | None:
        """See `EngineClient`."""
        status, reply = await self.ask(engine.VERSION.method, engine.VERSION.path, ASK_S)
        info = reply if status == 200 and isinstance(reply, dict) else {}
        return version_of(info.get("weight_version"))

    async def room_for_adapters(self) -> AdapterRoom | None:
        """See `HttpEngine`. vLLM says it in its development mode."""
        status, reply = await self.ask("GET", INFO, ASK_S, params={"config_format": "json"})
        config = reply.get("vllm_config") if status == 200 and isinstance(reply, dict) else None
        if not isinstance(config, dict) or "lora_config" not in config:
            return None
        lora = config["lora_config"] or {}
        return AdapterRoom(int(lora.get("max_lora_rank", 0)), int(lora.get("max_loras", 0)))

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """See `EngineClient`."""
        # mode=keep: requests under way stay and go on with the new weights; the engine's own
        # version spans tell which token came from which. The prefix cache holds keys and values
        # of the old weights, and pausing does not clear it.
        await self.post(engine.PAUSE.path, params=to_builtins(weights.PauseTerms()))
        began()
        # From here on weights and version may disagree. If we die below this line, or are refused,
        # the engine stays paused: nothing is sampled under a wrong version, and the next try does
        # all of it again.
        reload = weights.WeightReload(weights.ReloadArguments(str(folder)))
        await self.post(engine.LOAD.path, json=to_builtins(reload))
        self._at("reloaded_before_version")
        name = weights.VersionName(str(version))
        await self.post(engine.NAME.path, json=to_builtins(name))
        self._note_reset(await self.post(engine.RESET.path, params=RESET))
        await self.post(engine.RESUME.path)

    def _note_reset(self, reply: Any) -> None:
        """Say, once, that an engine keeps its cache. It goes on: salted calls do not read that."""
        keeps = isinstance(reply, dict) and reply.get("success") is False
        if keeps and not self._keeps_cache:
            log.warning(
                "the engine at %s has not reset its prefix cache (success: false): calls without "
                "cache_salt may read what older weights computed; send all calls through the proxy",
                self.url,
            )
        self._keeps_cache = keeps
