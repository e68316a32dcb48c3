"""Which adapter an engine needs: it is asked once, before its first call.

A new kind of engine is one module with an adapter, and one line of `KINDS`.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from odradek.infra.runtime.imports import import_entry
from odradek.proxy.engines.adapter import EngineAdapter
from odradek.proxy.engines.vllm import VLLM

log = logging.getLogger("odradek.proxy")

Get = Callable[[str], Awaitable[tuple[int, dict[str, str], bytes]]]
"""Status, headers and body of a path of an engine."""
Recognizer = Callable[[str, bytes], EngineAdapter | None]
"""The adapter of an engine that answers a path so; None for one of another kind."""
DEFAULT: Final[EngineAdapter] = VLLM
"""The adapter of an engine that no recognizer knows, or that is not asked."""
KINDS: Final = (
    "odradek.proxy.engines.sglang:KIND",
)  # fmt: skip
"""`module:name` of each kind of engine: paths that only those have, and their recognizer."""


async def recognize(get: Get) -> EngineAdapter | None:
    """Ask an engine what it is; None if it is busy or failing, and so cannot answer now."""
    for place in KINDS:
        kind: tuple[tuple[str, ...], Recognizer] = import_entry(place)
        paths, recognized = kind
        for path in paths:
            status, _, body = await get(path)
            if status == 200 and (adapter := recognized(path, body)) is not None:
                return adapter
            if status == 429 or status >= 500:
                return None
    return DEFAULT


def name_lacks(url: str, adapter: EngineAdapter) -> None:
    """Log what an engine lacks, what that costs, and what to do: a line for each."""
    for lack in adapter.lacks:
        log.warning("the engine at %s is %s, which has %s", url, adapter.name, lack)
