"""Recipes: which loss, advantage, correction and KL go together, and who says so. Without torch.

A combination is allowed where a paper or a peer's trainer has it, since only then there is
something that it can be held against: each is tested against an independent reference. A person's
own loss or advantage (`module:function`) goes with everything.
"""

from dataclasses import dataclass
from typing import Final

from odradek.trainer.feed.advantages import BASELINES

NO_CORRECTION: Final = frozenset({""})
ALL_CORRECTIONS: Final = frozenset(
    {"", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"}
)
WEIGHTS_TRUNCATED: Final = frozenset({"", "token_truncate", "sequence_truncate"})
NO_KL: Final = frozenset({""})


@dataclass(frozen=True)
class Combination:
    """What is combined, as settings name it.

    Attributes:
        loss: A name of `loss_table.LOSSES`.
        baseline: A name of `feed.advantages.BASELINES`.
        scale_advantages: By what advantages are divided.
        correction: Of importance weights; "" without `tis`.
        kl_form: Of the KL term; "" without `kl`.
        terms: Further ones in use: `dual_clip`, `entropy`, `top_entropy`.
    """

    loss: str
    baseline: str
    scale_advantages: str = "group"
    correction: str = ""
    kl_form: str = ""
    terms: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Recipe:
    """A row of the table: every combination of its values is allowed.

    Attributes:
        source: Who combines them.
        formula: Of the loss, in the notation of docs/learning.md.
    """

    source: str
    formula: str
    loss: frozenset[str]
    baseline: frozenset[str]
    scale_advantages: frozenset[str]
    correction: frozenset[str] = NO_CORRECTION
    kl_form: frozenset[str] = NO_KL
    terms: frozenset[str] = frozenset()

    def mismatches(self, wanted: Combination) -> tuple[str, ...]:
        """The names of what the recipe does not have."""
        wrong = [
            name for name in (*AXES, "kl_form") if getattr(wanted, name) not in getattr(self, name)
        ]
        return (*wrong, *sorted(wanted.terms - self.terms))


OFF: Final = {"dual_clip": 0, "entropy": 0, "top_entropy": 1}
"""Terms, and the setting that leaves each out."""
AXES: Final = ("loss", "baseline", "scale_advantages", "correction")


def _of(names: str) -> frozenset[str]:
    return frozenset(names.split())


TRL_LOSSES: Final = "grpo bnpo dr_grpo dapo gspo luspo"
RECIPES: Final = (
    Recipe(
        "TRL GRPOTrainer; DAPO, arXiv 2503.14476; Dr. GRPO, 2503.20783; GSPO, 2507.18071; LUSPO, "
        "2602.05261; TIS; IcePop, 2510.18855; dual clip, 1912.09729; top entropy, 2506.01939",
        "S[w f(r, A)] + kl S[k3 r^b] - entropy H; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of(TRL_LOSSES),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
        correction=ALL_CORRECTIONS,
        kl_form=NO_KL | _of("k3 k3_weighted"),
        terms=_of("dual_clip entropy top_entropy"),
    ),
    Recipe(
        "TRL GRPOTrainer; CISPO, arXiv 2506.13585; SAPO, 2511.20347",
        "S[w f(r, A)] + kl S[k3 r^b] - entropy H; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of("cispo sapo"),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
        correction=ALL_CORRECTIONS,
        kl_form=NO_KL | _of("k3 k3_weighted"),
        terms=_of("entropy top_entropy"),
    ),
    Recipe(
        "TRL GMPOTrainer; GMPO, arXiv 2507.20673",
        "S[f(r, A)] + kl S[k3]; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of("gmpo"),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
        kl_form=NO_KL | _of("k3"),
        terms=_of("top_entropy"),
    ),
    Recipe(
        "TRL RLOOTrainer; RLOO, arXiv 2402.14740",
        "S[f(r, A)]; A = R - kl K1 - mean of the others' R - kl K1",
        loss=_of("rloo"),
        baseline=_of("leave_one_out"),
        scale_advantages=_of("none"),
        kl_form=NO_KL | _of("k1_reward"),
    ),
    Recipe(
        "verl `grpo` with `vanilla` (kl_loss_type, clip_ratio_c, rollout_is)",
        "S[w f(r, A)] + kl S[k]; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of("grpo dapo dr_grpo"),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
        correction=WEIGHTS_TRUNCATED,
        kl_form=NO_KL | _of("k1 k2 k3"),
        terms=_of("dual_clip"),
    ),
    Recipe(
        "verl `grpo` with `cispo`, `sapo` (kl_loss_type, rollout_is)",
        "S[w f(r, A)] + kl S[k]; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of("cispo sapo"),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
        correction=WEIGHTS_TRUNCATED,
        kl_form=NO_KL | _of("k1 k2 k3"),
    ),
    Recipe(
        "verl `grpo` with `gspo` (kl_loss_type, rollout_is by sequence)",
        "S[w f(r, A)] + kl S[k]; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of("gspo"),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
        correction=NO_CORRECTION | _of("sequence_truncate"),
        kl_form=NO_KL | _of("k1 k2 k3"),
    ),
    Recipe(
        "verl `rloo` with `vanilla` (kl_loss_type, clip_ratio_c, rollout_is)",
        "S[w f(r, A)] + kl S[k]; A = R - mean of the others' R",
        loss=_of("grpo dapo dr_grpo"),
        baseline=_of("leave_one_out"),
        scale_advantages=_of("none"),
        correction=WEIGHTS_TRUNCATED,
        kl_form=NO_KL | _of("k1 k2 k3"),
        terms=_of("dual_clip"),
    ),
    Recipe(
        "verl `rloo` with `cispo`, `sapo` (kl_loss_type, rollout_is)",
        "S[w f(r, A)] + kl S[k]; A = R - mean of the others' R",
        loss=_of("cispo sapo"),
        baseline=_of("leave_one_out"),
        scale_advantages=_of("none"),
        correction=WEIGHTS_TRUNCATED,
        kl_form=NO_KL | _of("k1 k2 k3"),
    ),
    Recipe(
        "verl `rloo` with `gspo` (kl_loss_type, rollout_is by sequence)",
        "S[w f(r, A)] + kl S[k]; A = R - mean of the others' R",
        loss=_of("gspo"),
        baseline=_of("leave_one_out"),
        scale_advantages=_of("none"),
        correction=NO_CORRECTION | _of("sequence_truncate"),
        kl_form=NO_KL | _of("k1 k2 k3"),
    ),
    Recipe(
        "REINFORCE++, arXiv 2501.03262; OpenRLHF `reinforce`; verl `reinforce_plus_plus`",
        "S[w f(r, A)]; A = (G - mean_step G) / std_step G, G_t = R - kl sum_{s >= t} k_s",
        loss=_of("reinforce_pp dapo"),
        baseline=_of("batch"),
        scale_advantages=_of("batch"),
        correction=WEIGHTS_TRUNCATED | _of("token_mask"),
        kl_form=NO_KL | _of("k1_reward k2_reward k3_reward"),
        terms=_of("dual_clip"),
    ),
    Recipe(
        "REINFORCE++ with baseline, arXiv 2501.03262; OpenRLHF `reinforce_baseline`; verl "
        "`reinforce_plus_plus_baseline`",
        "S[w f(r, A)] + kl S[k]; A = (G - mean_step G) / std_step G, G = R - mean",
        loss=_of("reinforce_pp dapo"),
        baseline=_of("mean"),
        scale_advantages=_of("batch"),
        correction=WEIGHTS_TRUNCATED | _of("token_mask"),
        kl_form=NO_KL | _of("k2 k3"),
        terms=_of("dual_clip"),
    ),
    Recipe(
        "MC-GRPO, arXiv 2601.22582, with GRPO's deviation: the median in GRPO, DAPO and Dr. GRPO",
        "S[f(r, A)] + kl S[k3]; A = (R - median) / (std + 1e-4) or R - median",
        loss=_of("grpo dapo dr_grpo"),
        baseline=_of("median"),
        scale_advantages=_of("group none"),
        kl_form=NO_KL | _of("k3"),
    ),
    Recipe(
        "Pass@k training, arXiv 2508.10751",
        "S[f(r, A)] + kl S[k3]; A = mean of (max R - P) / sqrt(P (1 - P)) over groups of k with "
        "the sample, P = pass@k",
        loss=_of("grpo dapo"),
        baseline=_of("pass_at_k"),
        scale_advantages=_of("group"),
        kl_form=NO_KL | _of("k3"),
    ),
    Recipe(
        "MaxRL, arXiv 2602.02710; prime-rl `max_rl`",
        "S[f(r, A)]; A = (R - mean) / mean",
        loss=_of("grpo dapo dr_grpo bnpo dppo"),
        baseline=_of("max_rl"),
        scale_advantages=_of("none"),
    ),
    Recipe(
        "DPPO, arXiv 2602.04879; prime-rl `grpo`; TRL DPPOTrainer (up to 1.8)",
        "S[f(r, A)]; A = (R - mean) / (std + 1e-4) or R - mean",
        loss=_of("dppo"),
        baseline=_of("mean"),
        scale_advantages=_of("group none"),
    ),
)
"""Who combines what."""


def allowed(wanted: Combination) -> bool:
    """Whether a recipe has a combination."""
    return any(not recipe.mismatches(wanted) for recipe in RECIPES)


def refusal(wanted: Combination) -> str:
    """Why a combination is refused, in one line that says what goes together, or "".

    A loss or an advantage that no table names is a person's own and goes with everything.
    """
    if wanted.loss not in _known("loss") or wanted.baseline not in BASELINES or allowed(wanted):
        return ""
    of_loss = [recipe for recipe in RECIPES if wanted.loss in recipe.loss]
    recipe = min(of_loss, key=lambda recipe: len(recipe.mismatches(wanted)))
    fitting = "; ".join(_described(recipe, wanted, name) for name in recipe.mismatches(wanted))
    return (
        f"loss = {wanted.loss} goes with {fitting}, as in {recipe.source.split(';')[0]}: no paper "
        "or trainer in the table of docs/learning.md combines them otherwise. A loss or a baseline "
        "of your own (module:function) goes with everything"
    )


def _described(recipe: Recipe, wanted: Combination, name: str) -> str:
    """What a recipe has in place of what was given."""
    switch = {"correction": "tis = 0", "kl_form": "kl = 0"}.get(name, f"{name} = {OFF.get(name)}")
    if name in OFF:
        return switch
    given = getattr(wanted, name)
    values = sorted(getattr(recipe, name) - {""})
    choices = [f"{name} = {', '.join(values)}"] if values else []
    if "" in getattr(recipe, name):
        choices.append(switch)
    return f"{' or '.join(choices)} (not {given})"


def _known(axis: str) -> frozenset[str]:
    """Every value of an axis that some recipe has."""
    return frozenset().union(*(getattr(recipe, axis) for recipe in RECIPES))
