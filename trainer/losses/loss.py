"""A loss as objective, ratio, clip and sum; and the twelve of `trainer.loss_table`.

Notation: t counts sampled tokens, i rows (one row per linear run of tokens), r_t is
exp(log p(t) - log q(t)) with the trained policy p and the sampler q, A_i the advantage, e and E
the lower and upper clip. Every such difference of logarithms is bounded (`ratios.LOG_RATIO`).

w_i is the weight of a row: one over the number of rows of its episode, or 1 for all (`weigh`).
N = sum_i w_i, the episodes of the step, or its rows; T = sum_i w_i |o_i|, its tokens as they weigh.
N and T are the step's, so micro-batches of unequal size weigh what they should.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from odradek.trainer.losses.clips import (
    Clips,
    log_clips,
    no_clips,
    row_clips,
    token_clips,
    weight_clips,
    whole_clips,
)
from odradek.trainer.losses.inputs import LossInputs, LossOptions, Tensor
from odradek.trainer.losses.objectives import (
    by_rows,
    by_tokens,
    by_whole_rows,
    clipped_weight,
    divergence_mask,
    geometric,
    moved_too_far,
    soft_gate,
)
from odradek.trainer.losses.ratios import row_ratio, token_ratio, whole_ratio
from odradek.trainer.losses.sums import Aggregate, by_length, by_row, by_row_sum, by_token


@dataclass(frozen=True)
class Loss:
    """A policy loss.

    Attributes:
        each: What each token adds, shape (m,), with gradient.
        aggregate: How these become one scalar of the whole step.
        ratio: What weighs the KL term where its form is weighted, shape (m,).
        clips: Where its clip acts.
        chooses: Whether `each` itself leaves out the tokens that `top_entropy` does not choose.
    """

    each: Callable[[LossInputs, LossOptions], Tensor]
    aggregate: Aggregate = by_token
    ratio: Callable[[LossInputs], Tensor] = token_ratio
    clips: Clips = token_clips
    chooses: bool = False


GRPO: Final = Loss(by_tokens, by_row)
"""1/N sum_i w_i 1/|o_i| sum_t -min(r_t A_i, clip(r_t) A_i). arXiv 2402.03300, equation 3."""
DAPO: Final = Loss(by_tokens, by_token)
"""1/T sum_i w_i sum_t -min(r_t A_i, clip(r_t) A_i). arXiv 2503.14476, equation 8."""
DR_GRPO: Final = Loss(by_tokens, by_length)
"""1/(N L) sum_i w_i sum_t -min(r_t A_i, clip(r_t) A_i), so that length earns nothing; meant for
advantages without std. arXiv 2503.20783, section 3.2."""
BNPO: Final = Loss(by_tokens, by_token)
"""TRL's mean over the tokens of a local batch. Which rows share a micro-batch is decided by memory
here, and must not change what is learned: so the batch is the step, and the sum is that of dapo."""
GSPO: Final = Loss(by_rows, by_row, row_ratio, row_clips)
"""1/N sum_i w_i -min(s_i A_i, clip(s_i) A_i), s_i = exp(1/|o_i| sum_t log r_t). arXiv 2507.18071,
equations 5 and 7."""
CISPO: Final = Loss(clipped_weight, by_token, clips=weight_clips)
"""1/T sum_i w_i sum_t -sg(min(r_t, 1 + E)) A_i log p(t). arXiv 2506.13585, equations 4 and 5."""
SAPO: Final = Loss(soft_gate, by_row, clips=no_clips)
"""1/N sum_i w_i 1/|o_i| sum_t -4/tau sigmoid(tau (r_t - 1)) A_i, tau = 1 for A_i > 0, else 1.05.
arXiv 2511.20347; the gate is its equation 6."""
LUSPO: Final = Loss(by_rows, by_row_sum, row_ratio, row_clips)
"""1/N sum_i w_i |o_i| -min(s_i A_i, clip(s_i) A_i). arXiv 2602.05261, equation 7."""
GMPO: Final = Loss(geometric, by_row, clips=log_clips, chooses=True)
"""1/N sum_i w_i -A_i exp(1/|o_i| sum_t clip(log r_t, -e, E)), clipped on the side that A_i pushes
to. arXiv 2507.20673, equation 4; the paper's e and E are 0.4."""
RLOO: Final = Loss(by_whole_rows, by_row, whole_ratio, whole_clips)
"""1/N sum_i w_i -min(R_i A_i, clip(R_i) A_i), R_i = exp(sum_t log r_t): a reply is one action.
arXiv 2402.14740; the clip as in TRL's RLOOTrainer."""
REINFORCE_PP: Final = Loss(by_tokens, by_row)
"""1/N sum_i w_i 1/|o_i| sum_t -min(r_t A_t, clip(r_t) A_t), meant for advantages normalised over
the whole step. REINFORCE++, arXiv 2501.03262, version 9, equation 1."""
DPPO: Final = Loss(divergence_mask, by_token, clips=moved_too_far)
"""1/T sum_i w_i sum_t -M_t r_t A_i, M_t = 0 where |p(t) - q(t)| has grown beyond E or e.
arXiv 2602.04879, equation 12 with the binary total variation of 13. The paper sums over a reply's
tokens; the mean over the step's is prime-rl's and TRL's. Without prime-rl's second term, a KL to
the sampler."""
