"""An engine of unknown kind: its kind is found out before its first load.

A new kind of engine is one module with a client, and one line of `KINDS`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.imports import import_entry
from odradek.trainer.errors import EngineDown
from odradek.trainer.weights.client import ASK_S, LOAD_S, AdapterHost, EngineClient, HttpEngine
from odradek.trainer.weights.vllm import VllmEngine

Maker = Callable[..., AdapterHost]
Kind = tuple[tuple[str, ...], Callable[[Any], bool], Maker]
KINDS: Final = (
    "odradek.trainer.weights.sglang:KIND",
)  # fmt: skip
"""`module:name` of each kind: paths that only engines of it have, what recognizes it by their
answers, and its client."""


class RecognizedEngine:
    """Implements `EngineClient` for whatever answers at an address.

    Whoever is away may be another engine once it is back, so it is asked again then.

    Args:
        url: Its root.
        quiet_s: How long it may take over anything but a load.
        at: Called at each crash point.
        through: Makes a client of the client of its kind; itself, if none is given.
    """

    def __init__(
        self,
        url: str,
        *,
        quiet_s: float = LOAD_S,
        at: Callable[[str], None] = crash_point,
        through: Callable[[AdapterHost], EngineClient] | None = None,
    ) -> None:
        self.url = url
        self._quiet_s = quiet_s
        self._at = at
        self._through = through
        self._client: EngineClient | None = None

    async def answers(self) -> None:
        """See `EngineClient`."""
        await (await self._recognized()).answers()

    async def serves(self) -> int | None:
        """See `EngineClient`."""
        with self._until_down():
            return await (await self._recognized()).serves()

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """See `EngineClient`."""
        with self._until_down():
            await (await self._recognized()).load(folder, version, began)

    @contextmanager
    def _until_down(self) -> Iterator[None]:
        """Forget what kind of engine it is if nobody answers."""
        try:
            yield
        except EngineDown:
            self._client = None
            raise

    async def _recognized(self) -> EngineClient:
        """The client of its kind. Raises EngineDown."""
        if self._client is None:
            make = await self._kind()
            engine = make(self.url, quiet_s=self._quiet_s, at=self._at)
            self._client = self._through(engine) if self._through is not None else engine
        return self._client

    async def _kind(self) -> Maker:
        http = HttpEngine(self.url)
        for place in KINDS:
            kind: Kind = import_entry(place)
            paths, recognizes, make = kind
            for path in paths:
                status, reply = await http.ask("GET", path, ASK_S)
                if status == 200 and recognizes(reply):
                    return make
        return VllmEngine
