"""SGLang takes weights: its words for a swap.

Follows SGLang's documentation as of autumn 2026. A load names the weights in the same request and
empties the prefix cache, so weights, name and cache change together.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from odradek.trainer.errors import EngineRefused
from odradek.trainer.weights.client import ASK_S, HttpEngine, version_of

INFO: Final = ("/model_info", "/get_model_info")
"""Where it says what it is and which weights it serves; the second is the older name."""
PAUSE: Final = "/pause_generation"
LOAD: Final = "/update_weights_from_disk"
RESUME: Final = "/continue_generation"


class SglangEngine(HttpEngine):
    """Implements `EngineClient`."""

    needs = "SGLang needs a folder that it can read, and no --api-key or --admin-api-key"
    loads = frozenset({LOAD})
    adapter_paths = ("/load_lora_adapter", "/unload_lora_adapter")
    needs_for_adapters = (
        "SGLang needs --enable-lora, --max-lora-rank, --lora-target-modules, and a folder that it "
        "can read"
    )
    optional = frozenset({PAUSE, RESUME})
    """An SGLang that cannot pause waits itself until the requests under way are over."""

    async def answers(self) -> None:
        """See `EngineClient`."""
        await self._info()

    async def serves(self) -> int | None:
        """See `EngineClient`."""
        return version_of((await self._info()).get("weight_version"))

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """See `EngineClient`."""
        # mode=retract: requests under way go back into the queue, so none holds a block of the
        # cache that the load empties; they go on with the new weights. Without a pause a load
        # waits until all of them are over, and with mode=in_place the cache stays.
        await self.post(PAUSE, json={"mode": "retract"})
        began()
        # If we die below this line, or are refused, the engine stays paused, under its old name or
        # its new one: nothing is sampled, and the next try does all of it again.
        reply = await self.post(
            LOAD,
            json={
                "model_path": str(folder),
                "weight_version": str(version),
                "flush_cache": True,
                "abort_all_requests": False,
            },
        )
        if isinstance(reply, dict) and reply.get("success") is False:
            raise EngineRefused(
                f"the engine at {self.url} has not loaded version {version}: "
                f"{str(reply.get('message'))[:200]!r}"
            )
        self._at("reloaded_before_version")
        await self.post(RESUME, json={})

    async def _info(self) -> dict[str, Any]:
        for path in INFO:
            status, reply = await self.ask("GET", path, ASK_S)
            if status == 200 and isinstance(reply, dict):
                return reply
        return {}


def _is_sglang(info: Any) -> bool:
    """Whether an answer of `INFO` is one."""
    return isinstance(info, dict) and "model_path" in info and "is_generation" in info


KIND: Final = (INFO, _is_sglang, SglangEngine)
"""For `recognition`: the paths that only an SGLang has, what recognizes it, and its client."""
