"""Faults of the sampler, and of those who read what it writes."""

from collections.abc import Sequence
from typing import Any

from odradek.agents.dispatch import feedback
from odradek.schemas.events import Step
from odradek.streams.sampler.mixer import Mixer
from odradek.streams.sampler.process import SamplerProcess
from odradek.trainer.plan.replayed import ReplayedRows
from tests.simulation.planted.patches import Patches


def mixed_before_offsets() -> Patches:
    """Batches are written in one transaction, both offsets in the next, and only these are read."""

    async def commit(self: SamplerProcess, writer: Any, out: Sequence[Any]) -> None:
        await writer.write(*out)
        await original(self, writer, ())

    async def passed(self: SamplerProcess, batches: int, steps: int) -> tuple[int, int, set[int]]:
        *_, mixed = await heard(self, batches, steps)
        return batches, steps, mixed

    original, heard = SamplerProcess._commit, SamplerProcess._passed
    return [(SamplerProcess, "_commit", commit), (SamplerProcess, "_passed", passed)]


def offsets_before_mixed() -> Patches:
    """Both offsets are committed in one transaction, and batches written in the next."""

    async def commit(self: SamplerProcess, writer: Any, out: Sequence[Any]) -> None:
        await original(self, writer, ())
        await writer.write(*out)

    original = SamplerProcess._commit
    return [(SamplerProcess, "_commit", commit)]


def draws_not_read_back() -> Patches:
    """A new sampler does not know what was drawn before."""
    return [(Mixer, "drew", lambda *_: None)]


def replayed_batches_give_credit() -> Patches:
    """The dispatcher counts every batch of the mixed topic that a step has passed."""

    def passed(step: Step) -> int:
        return step.position

    return [(feedback, "_passed", passed)]


def repeated_rows_used() -> Patches:
    """The trainer takes rows that its step has already."""
    return [(ReplayedRows, "reason", lambda *_: "")]
