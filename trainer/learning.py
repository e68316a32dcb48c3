"""Settings of learning that cannot hold together, and those that have no effect. Pure."""

from collections.abc import Iterator
from typing import Final, Protocol

from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.imports import find
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.advantages import Scale
from odradek.trainer.loss_table import Correction, KlForm, entry_of
from odradek.trainer.recipes import Combination, refusal

LEAST_CAP: Final = 0.01
"""Below it truncated importance sampling leaves nothing of a gradient."""


class LearningSettings(Protocol):
    """The settings of `TrainerSettings` that decide what is learned; it says what each means."""

    loss: str
    epsilon_low: float
    epsilon_high: float
    dual_clip: float
    kl: float
    kl_form: KlForm
    entropy: float
    top_entropy: float
    tis: float
    tis_low: float
    correction: Correction
    baseline: str
    scale_advantages: Scale
    overlong_tokens: int
    overlong_buffer: int


def _combination(settings: LearningSettings) -> Combination:
    """What settings combine."""
    terms = {
        "dual_clip": settings.dual_clip > 0,
        "entropy": settings.entropy > 0,
        "top_entropy": settings.top_entropy < 1,
    }
    return Combination(
        loss=settings.loss,
        baseline=settings.baseline,
        scale_advantages=settings.scale_advantages,
        correction=settings.correction if settings.tis > 0 else "",
        kl_form=settings.kl_form if settings.kl > 0 else "",
        terms=frozenset(name for name, used in terms.items() if used),
    )


def of_learning(settings: LearningSettings) -> Iterator[str]:
    """Each pair that cannot work, in a line that names both and says why."""
    if line := refusal(_combination(settings)):
        yield line
    if 0 < settings.tis < LEAST_CAP:
        yield (
            f"tis ({settings.tis:g}) caps the weight of every token near 0, so nothing is learned: "
            f"give a cap of {LEAST_CAP:g} or more (2 is usual), or 0 to leave it out"
        )
    if 0 < settings.tis < settings.tis_low:
        yield (
            f"tis_low ({settings.tis_low:g}) is above tis ({settings.tis:g}), so no importance "
            "weight is between them: give a lower tis_low"
        )
    if 0 < settings.dual_clip <= 1 + settings.epsilon_high:
        yield (
            f"dual_clip ({settings.dual_clip:g}) must be above 1 + epsilon_high "
            f"({1 + settings.epsilon_high:g}): it bounds ratios that the clip does not"
        )
    entry = entry_of(settings.loss)
    if entry.clips_below and settings.epsilon_low == settings.epsilon_high == 0:
        yield (
            "epsilon_low (0) and epsilon_high (0) clip every token that training has moved, so "
            f"learning stops where it began: give {settings.loss} room on one side at least"
        )
    if settings.overlong_buffer > settings.overlong_tokens > 0:
        yield (
            f"overlong_buffer ({settings.overlong_buffer}) is larger than overlong_tokens "
            f"({settings.overlong_tokens}), so a reply of no tokens would be too long: give a "
            "smaller one"
        )


def require_own(settings: LearningSettings) -> None:
    """Import a person's loss and baseline, so that a mistake shows before anything is trained.

    Raises BadSettings; what their module raises as it is imported is passed on.
    """
    for name in ("loss", "baseline"):
        target = getattr(settings, name)
        if ":" in target:
            try:
                found = find(target)
            except NoSuchName as error:
                raise BadSettings(f"{name} = {target}: {error}") from None
            if not callable(found) and not hasattr(found, "each"):
                raise BadSettings(f"{name} = {target} is no function, and no Loss")


def idle_in_learning(settings: LearningSettings) -> dict[str, tuple[bool, str]]:
    """Settings, whether nothing reads them, and because of what."""
    entry, of_loss = entry_of(settings.loss), f"loss = {settings.loss}"
    return {
        "epsilon_low": (not entry.clips_below, of_loss),
        "epsilon_high": (not entry.clips_above, of_loss),
        "kl_form": (settings.kl == 0, "kl = 0"),
        "tis_low": (settings.tis == 0, "tis = 0"),
        "correction": (settings.tis == 0, "tis = 0"),
        "pass_k": (settings.baseline != "pass_at_k", f"baseline = {settings.baseline}"),
        "overlong_buffer": (settings.overlong_tokens == 0, "overlong_tokens = 0"),
    }
