"""Faults of what the trainer does to several engines."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from odradek.trainer.adapters.client import AdapterClient
from odradek.trainer.weights import fleet
from odradek.trainer.weights.fleet import (
    Fleet,
    FleetEngine,
    SwapDecision,
    SwapStatus,
    TargetWeights,
)
from odradek.trainer.weights.vllm import VllmEngine
from tests.simulation.planted.patches import Patches


def all_engines_named() -> Patches:
    """A policy names every engine as having its weights."""
    swap = Fleet.swap

    async def named(self: Fleet, folder: Path, version: int) -> dict[str, int]:
        return dict.fromkeys(await swap(self, folder, version), version)

    return [(Fleet, "swap", named)]


def dead_engines_waited_for() -> Patches:
    """A swap is done once every engine has the weights."""
    true = fleet.verdict

    def strict(fates: Collection[SwapStatus], *, over: bool) -> SwapDecision:
        found = true(fates, over=over)
        if found is SwapDecision.GO and set(fates) != {SwapStatus.HAS}:
            return SwapDecision.GIVE_UP if over else SwapDecision.WAIT
        return found

    return [(fleet, "verdict", strict)]


def refusals_believed() -> Patches:
    """One engine that refuses ends a swap."""
    true = fleet.verdict

    def believed(fates: Collection[SwapStatus], *, over: bool) -> SwapDecision:
        return SwapDecision.GIVE_UP if SwapStatus.REFUSED in fates else true(fates, over=over)

    return [(fleet, "verdict", believed)]


def returning_engines_forgotten() -> Patches:
    """Whoever has been loaded once is looked at again only for the next weights."""

    async def blind(self: Fleet, member: FleetEngine, target: TargetWeights) -> None:
        del member, target
        await self._new_target.wait()

    return [(Fleet, "_look", blind)]


def late_engines_left_behind() -> Patches:
    """Who was away at a swap gets the weights of the next one."""

    async def once(self: Fleet, member: FleetEngine) -> None:
        while True:
            target = self._target
            assert target is not None
            try:
                await member.client.load(target.folder, target.version, lambda: None)
            except fleet.EngineError as error:
                self._away(member, error)
            else:
                self._has(member, target)
            if self._target is target:
                await self._new_target.wait()

    return [(Fleet, "_tend", once)]


def named_after_it_samples() -> Patches:
    """An engine goes on with the new weights under the old version, for a moment."""

    async def load(self: VllmEngine, folder: Path, version: int, began: Any) -> None:
        await self.post("/pause", params={"mode": "keep"})
        began()
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self.post("/collective_rpc", json=reload)
        await self.post("/resume")
        await self.post("/update_weight_version", json={"new_version": str(version)})

    return [(VllmEngine, "load", load)]


def adapters_never_forgotten() -> Patches:
    """An engine keeps every adapter that it was ever sent."""

    async def keep(self: AdapterClient, version: int) -> None:
        del self, version

    return [(AdapterClient, "_forget", keep)]


def adapters_loaded_under_one_name() -> Patches:
    """A version that an engine has already is taken for the new one."""
    load = AdapterClient.load

    async def once(
        self: AdapterClient, folder: Path, version: int, began: Callable[[], None]
    ) -> None:
        if await self.serves():
            began()
        else:
            await load(self, folder, version, began)

    return [(AdapterClient, "load", once)]
