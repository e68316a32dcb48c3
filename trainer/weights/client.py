"""One engine that takes weights, over the surface that vLLM's development mode has."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp

from odradek.infra.runtime.crash_points import crash_point
from odradek.trainer.errors import EngineDown, EngineRefused

CONNECT_S: Final = 5.0
ASK_S: Final = 5.0
"""How long a question that needs no work may take."""
LOAD_S: Final = 600.0
"""Longest load of a large model; whoever waits for it may give up before."""
UNNAMED: Final = 0
"""The version of weights that no trainer has named."""
RESET: Final = {"reset_running_requests": "true", "reset_external": "true"}
"""Without the first, a reset does nothing while any request holds a block, as each that is kept
over the pause does, and answers 200 all the same; the second is for caches outside the engine. The
proxy salts its calls with the version besides, which needs no reset to succeed."""

log = logging.getLogger("odradek")


class EngineClient(Protocol):
    """What a fleet needs of an engine. Each method raises EngineDown where nobody answers."""

    url: str

    async def answers(self) -> None:
        """Return once the engine answers anything."""
        ...

    async def serves(self) -> int | None:
        """The version that it serves; None where it does not tell."""
        ...

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """Load weights and call them `version`; whatever became of an attempt before.

        Args:
            folder: Where the weights are.
            version: What they are called.
            began: Called once the engine has answered.

        Raises EngineRefused where it answers with an error.
        """
        ...


class HttpEngine:
    """Implements `EngineClient`.

    Args:
        url: Its root.
        quiet_s: How long it may take over anything but a load.
        at: Called at each crash point.
    """

    def __init__(
        self, url: str, *, quiet_s: float = LOAD_S, at: Callable[[str], None] = crash_point
    ) -> None:
        self.url = url
        self._quiet_s = quiet_s
        self._at = at
        self._keeps_cache = False

    async def answers(self) -> None:
        """See `EngineClient`."""
        await self._ask("GET", "/health", ASK_S)

    async def serves(self) -> int | None:
        """See `EngineClient`."""
        status, said = await self._ask("GET", "/weight_info", ASK_S)
        label = said.get("weight_version") if status == 200 and isinstance(said, dict) else None
        if not isinstance(label, str | int):
            return None
        return int(label) if str(label).isdecimal() else UNNAMED

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """See `EngineClient`."""
        # mode=keep: requests under way stay and go on with the new weights; the engine's own
        # version spans tell which token came from which. The prefix cache holds keys and values
        # of the old weights, and pausing does not clear it.
        await self._post("/pause", params={"mode": "keep"})
        began()
        # From here on weights and version may disagree. If we die below this line, or are refused,
        # the engine stays paused: nothing is sampled under a wrong version, and the next try does
        # all of it again.
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self._post("/collective_rpc", json=reload)
        self._at("reloaded_before_version")
        await self._post("/update_weight_version", json={"new_version": str(version)})
        self._note_reset(await self._post("/reset_prefix_cache", params=RESET))
        await self._post("/resume")

    def _note_reset(self, said: Any) -> None:
        """Say, once, that an engine keeps its cache. It goes on: salted calls do not read that."""
        kept = isinstance(said, dict) and said.get("success") is False
        if kept and not self._keeps_cache:
            log.warning(
                "the engine at %s has not reset its prefix cache (success: false): calls without "
                "cache_salt may read what older weights computed; send all calls through the proxy",
                self.url,
            )
        self._keeps_cache = kept

    async def _post(self, path: str, **request: Any) -> Any:
        """What it answers. Raises EngineDown or EngineRefused."""
        within_s = LOAD_S if path == "/collective_rpc" else min(self._quiet_s, LOAD_S)
        status, said = await self._ask("POST", path, within_s, **request)
        if status == 404 and path == "/update_weight_version":
            return said  # an engine older than version spans: the proxy infers versions
        if not 200 <= status < 300:
            raise EngineRefused(
                f"the engine at {self.url} answered {status} to {path}: "
                f"{str(said)[:200]!r} (vLLM needs VLLM_SERVER_DEV_MODE=1)"
            )
        return said

    async def _ask(
        self, method: str, path: str, within_s: float, **request: Any
    ) -> tuple[int, Any]:
        """Status and body: what JSON it is, else its text."""
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        try:
            # Engines are ours: trust_env, which would put a proxy between, is off by default. Where
            # aiohttp's own limit and a cancellation meet, it loses the cancellation.
            async with (
                asyncio.timeout(within_s),
                aiohttp.ClientSession(timeout=limit) as session,
                session.request(
                    method, self.url + path, allow_redirects=False, **request
                ) as answer,
            ):
                text = await answer.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineDown(
                f"no engine answers at {self.url}: start it, or correct its URL"
            ) from error
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text
