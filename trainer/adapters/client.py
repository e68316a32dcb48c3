"""An engine that takes adapters: each version is loaded under its own name, while calls go on.

A load pauses nothing. Calls under way go on with the adapter that they named, and only calls that
name the new one get it, so a reply is of one version, and the engine's cache, which keeps prefixes
of different adapters apart, needs no reset.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.http import engine, weights
from odradek.schemas.http.weights import adapter_name, version_named
from odradek.trainer.errors import EngineRefused
from odradek.trainer.weights.client import ASK_S, UNNAMED, AdapterHost

log = logging.getLogger("odradek")


class AdapterTerms(Struct, frozen=True):
    """What a run's adapters are called, and what an engine must have room for.

    Attributes:
        policy: Name of the policy, with which their names begin.
        rank: Of each.
        kept: How many stay loaded: one for each version whose rows are still taken.
    """

    policy: str
    rank: int
    kept: int

    @property
    def at_once(self) -> int:
        """How many are loaded at once: a new one is loaded before the oldest is forgotten."""
        return self.kept + 1


class AdapterClient:
    """Implements `EngineClient` for one that loads adapters.

    Args:
        host: The client of its kind.
        terms: Of the run.
        at: Called at each crash point.
    """

    def __init__(
        self, host: AdapterHost, terms: AdapterTerms, *, at: Callable[[str], None] = crash_point
    ) -> None:
        self.url = host.url
        self._host = host
        self._terms = terms
        self._at = at
        self._has_room = False
        """Whether the engine has room for all of them, or does not say."""

    async def answers(self) -> None:
        """See `EngineClient`."""
        await self._host.answers()

    async def serves(self) -> int | None:
        """See `EngineClient`: the newest of the policy's adapters; none of them is version 0."""
        listed = await self._listed()
        return None if listed is None else max(listed, default=UNNAMED)

    async def load(self, folder: Path, version: int, began: Callable[[], None]) -> None:
        """See `EngineClient`."""
        listed = await self._listed() or []
        began()
        await self._require_room()
        # A start that died behind its load has left one too many: there must be room for the new.
        held = await self._forget_behind({*listed} - {version})
        load, _ = self._host.adapter_paths
        # A version's name is never given twice: where it is there, it is this folder, loaded by a
        # try whose answer was lost. If we die below this line, the engine has an adapter that
        # nobody names until a Policy does; above it, it has what it had.
        if version not in listed:
            request = weights.AdapterLoad(adapter_name(self._terms.policy, version), str(folder))
            self._refuse_failure(await self._host.post(load, json=to_builtins(request)), version)
        self._at("adapter_before_unload")
        # If we die above this line, an old adapter stays until the next load.
        await self._forget_behind({*held, version})

    async def _forget_behind(self, versions: set[int]) -> list[int]:
        """Have all adapters but the newest forgotten; those that stay."""
        held = sorted(versions)
        for old in held[: -self._terms.kept]:
            await self._forget(old)
        return held[-self._terms.kept :]

    async def _forget(self, version: int) -> None:
        """Have an adapter forgotten. An engine that refuses goes on with it: only room is lost."""
        _, unload = self._host.adapter_paths
        name = adapter_name(self._terms.policy, version)
        request = to_builtins(weights.AdapterUnload(name))
        status, reply = await self._host.ask("POST", unload, ASK_S, json=request)
        if status >= 400 and status != 404:
            log.warning(
                "the engine at %s keeps the adapter %s: %d, %.200r", self.url, name, status, reply
            )

    async def _listed(self) -> list[int] | None:
        """Versions of the policy's adapters that it lists; None where it lists nothing."""
        status, reply = await self._host.ask(engine.MODELS.method, engine.MODELS.path, ASK_S)
        models = reply.get("data") if status == 200 and isinstance(reply, dict) else None
        if not isinstance(models, list):
            return None
        names = [str(model.get("id")) for model in models if isinstance(model, dict)]
        versions = (version_named(self._terms.policy, name) for name in names)
        return [version for version in versions if version is not None]

    async def _require_room(self) -> None:
        """Raise EngineRefused where it says that it has too little room, and what to change."""
        if self._has_room:
            return
        room, terms = await self._host.room_for_adapters(), self._terms
        if room is not None:
            wanted = {
                "--max-lora-rank": (room.rank, terms.rank),
                "--max-loras": (room.at_once, terms.at_once),
            }
            for flag, (has, needs) in wanted.items():
                if has < needs:
                    raise EngineRefused(
                        f"the engine at {self.url} was started with {flag} {has}, and this run "
                        f"needs {needs} (lora_rank {terms.rank}, max_staleness {terms.kept - 1}): "
                        "start it again with ODRADEK_TRAINER_LORA_RANK and "
                        "ODRADEK_TRAINER_MAX_STALENESS as the trainer has them"
                    )
        self._has_room = True

    def _refuse_failure(self, reply: Any, version: int) -> None:
        if isinstance(reply, dict) and reply.get("success") is False:
            raise EngineRefused(
                f"the engine at {self.url} has not loaded the adapter of version {version}: "
                f"{str(reply.get('error_message') or reply)[:200]!r}"
            )
