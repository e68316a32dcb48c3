"""An engine in memory: what it has loaded, and what it would sample with."""

from collections.abc import Callable
from pathlib import Path

from odradek.trainer.errors import EngineDown, EngineRefused


class MemoryEngine:
    """Implements `EngineClient`, without HTTP and without a model.

    Attributes:
        served: Every version that it has served, with its folder, in order.
        down: Whether nobody answers.
        refuses: What it says of a load, "" if it takes one.
    """

    def __init__(self, url: str = "memory") -> None:
        self.url = url
        self.served: list[tuple[int, Path | None]] = [(0, None)]
        self.down = False
        self.refuses = ""

    async def answers(self) -> None:
        """See `EngineClient`."""
        if self.down:
            raise EngineDown(f"no engine answers at {self.url}")

    async def serves(self) -> int | None:
        """See `EngineClient`."""
        await self.answers()
        return self.served[-1][0]

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """See `EngineClient`."""
        await self.answers()
        began()
        if self.refuses:
            raise EngineRefused(f"the engine at {self.url}: {self.refuses}")
        self.served.append((version, folder))
