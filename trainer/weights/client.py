"""One engine that takes weights: what a fleet needs of it, and how it is asked over HTTP."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from msgspec import Struct

from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.http import engine
from odradek.trainer.errors import EngineDown, EngineRefused

CONNECT_S: Final = 5.0
ASK_S: Final = 5.0
"""How long a question that needs no work may take."""
LOAD_S: Final = 600.0
"""Longest load of a large model; whoever waits for it may give up before."""
UNNAMED: Final = 0
"""The version of weights that no trainer has named."""


def version_of(label: Any) -> int | None:
    """The version that an engine's name for its weights stands for; None where it has none."""
    if not isinstance(label, str | int):
        return None
    return int(label) if str(label).isdecimal() else UNNAMED


class AdapterRoom(Struct, frozen=True):
    """Bounds of the adapters that an engine takes."""

    rank: int
    """Highest rank; 0 where it takes none."""
    at_once: int
    """How many it holds ready at once."""


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


class AdapterHost(EngineClient, Protocol):
    """What an engine's client needs for adapters, too: its words for them differ by kind."""

    adapter_paths: tuple[str, str]
    """Where it loads adapters, and where it forgets them."""

    async def ask(self, method: str, path: str, within_s: float, **request: Any) -> tuple[int, Any]:
        """Status and body. Raises EngineDown."""
        ...

    async def post(self, path: str, **request: Any) -> Any:
        """The body of a good answer. Raises EngineDown or EngineRefused."""
        ...

    async def room_for_adapters(self) -> AdapterRoom | None:
        """What it says of the adapters that it takes; None where it says nothing."""
        ...


class HttpEngine:
    """Asks an engine over HTTP. Its kinds, which implement `EngineClient`, have their own modules.

    Args:
        url: Its root.
        quiet_s: How long it may take over anything but a load.
        at: Called at each crash point.
    """

    needs = ""
    """What an engine of the kind must be to take weights."""
    loads: frozenset[str] = frozenset()
    """Paths that take as long as a load does."""
    optional: frozenset[str] = frozenset()
    """Paths that an older engine of the kind may lack."""
    adapter_paths: tuple[str, str] = (engine.LOAD_ADAPTER.path, engine.UNLOAD_ADAPTER.path)
    """Where it loads adapters, and where it forgets them."""
    needs_for_adapters = ""
    """What an engine of the kind must be to load adapters."""

    def __init__(
        self, url: str, *, quiet_s: float = LOAD_S, at: Callable[[str], None] = crash_point
    ) -> None:
        self.url = url
        self._quiet_s = quiet_s
        self._at = at

    async def post(self, path: str, **request: Any) -> Any:
        """The engine's answer. Raises EngineDown or EngineRefused."""
        is_load = path in self.loads or path == self.adapter_paths[0]
        within_s = LOAD_S if is_load else min(self._quiet_s, LOAD_S)
        status, reply = await self.ask("POST", path, within_s, **request)
        if status == 404 and path in self.optional:
            return reply
        if not 200 <= status < 300:
            needs = self.needs_for_adapters if path in self.adapter_paths else self.needs
            raise EngineRefused(
                f"the engine at {self.url} answered {status} to {path}: "
                f"{str(reply)[:200]!r} ({needs})"
            )
        return reply

    async def room_for_adapters(self) -> AdapterRoom | None:
        """What it says of the adapters that it takes; None where it says nothing."""
        return None

    async def ask(self, method: str, path: str, within_s: float, **request: Any) -> tuple[int, Any]:
        """Status and body: decoded where it is JSON, else its text."""
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
