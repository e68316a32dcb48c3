"""The loss of a micro-batch: the policy's term, importance weights, KL and entropy together."""

from dataclasses import replace
from functools import cache

from odradek.infra.runtime.imports import find, import_entry
from odradek.trainer.feed.step_advantages import StepRules
from odradek.trainer.learning import LearningSettings
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.losses.corrections import importance_weights
from odradek.trainer.losses.inputs import LossInputs, LossOptions, StepTotals, Tensor
from odradek.trainer.losses.loss import Loss
from odradek.trainer.losses.penalties import entropy_bonus, to_reference
from odradek.trainer.losses.preparation import Preparation
from odradek.trainer.losses.ratios import log_ratio
from odradek.trainer.losses.sums import by_token

__all__ = [
    "Loss",
    "LossInputs",
    "LossOptions",
    "StepTotals",
    "Tensor",
    "by_token",
    "clips",
    "log_ratio",
    "loss_of",
    "options_of",
    "policy_loss",
    "preparation_of",
]


@cache
def loss_of(name: str) -> Loss:
    """The loss that the table names so, or that a person's `module:function` is.

    A function is taken as the objective of each token, with the mean over the step's tokens; a
    `Loss` as it is. Raises NoSuchName where there is none.
    """
    entry: Loss | object = import_entry(LOSSES[name].place) if name in LOSSES else find(name)
    return entry if isinstance(entry, Loss) else Loss(entry)  # type: ignore[arg-type] # a person's


def options_of(settings: LearningSettings) -> LossOptions:
    """The parameters of all losses, as a run is set."""
    return LossOptions(
        epsilon_low=settings.epsilon_low,
        epsilon_high=settings.epsilon_high,
        kl=0.0 if settings.kl_form.endswith("reward") else settings.kl,
        tis=settings.tis,
        correction=settings.correction,
        tis_low=settings.tis_low,
        dual_clip=settings.dual_clip,
        kl_form=settings.kl_form,
        entropy=settings.entropy,
        top_entropy=settings.top_entropy,
    )


def preparation_of(settings: LearningSettings) -> Preparation:
    """What is to be done before the gradient of a step, as a run is set."""
    in_reward = settings.kl if settings.kl_form.endswith("reward") else 0.0
    return Preparation(
        StepRules(settings.baseline, settings.scale_advantages, in_reward),
        settings.kl_form,
        settings.top_entropy,
    )


def _after_correction(terms: LossInputs, shape: LossOptions) -> LossInputs:
    """With a correction the loss has the ratio to the proximal policy."""
    return replace(terms, old_logprobs=terms.near) if shape.tis > 0 else terms


def clips(name: str, terms: LossInputs, shape: LossOptions) -> tuple[Tensor, Tensor]:
    """Where the clip of a loss acts below and above, each bool of shape (m,).

    Of the ratio that the loss itself clips: of whole rows in gspo, to the proximal policy with a
    correction. There the token has no gradient (in cispo, whose clip is of the weight, none that
    grows).
    """
    return loss_of(name).clips(_after_correction(terms, shape), shape)


def policy_loss(name: str, terms: LossInputs, whole: StepTotals, shape: LossOptions) -> Tensor:
    """The micro-batch's share of the step's loss, a scalar with gradient.

    Args:
        name: One of `loss_table.LOSSES`, or `module:function`.
        terms: The micro-batch; with its entropy where the options ask for it.
        whole: The step's size, for the division.
        shape: Clips, correction, KL, entropy.
    """
    loss = loss_of(name)
    if shape.top_entropy < 1:
        assert terms.entropy is not None
        terms = replace(terms, chosen=terms.entropy.detach() >= whole.entropy_floor)
    judged = _after_correction(terms, shape)
    values = loss.each(judged, shape)
    if terms.chosen is not None and not loss.chooses:
        values = values * terms.chosen
    if shape.tis > 0:
        values = values * importance_weights(terms, shape)
    if shape.kl > 0:
        values = values + shape.kl * to_reference(terms, shape, loss.ratio(judged))
    total = loss.aggregate(values, terms, whole, shape)
    if shape.entropy > 0:
        total = total - shape.entropy * entropy_bonus(terms, whole)
    return total
