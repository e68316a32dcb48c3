"""From what the tokens of a sequence were drawn, and which of them are trained on. Pure numpy.

A token is trained on where it came from the policy's whole distribution at a known temperature: the
trainer then computes the same probability, by dividing by that temperature. A reply that did not,
since its request altered the distribution or was all but greedy, stays where it stands as
context, and its tokens are masked: what else was sampled in the same sequence is as good as ever.
A sequence in which nothing else was sampled is refused.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from odradek.schemas.events import Episode, Sequence, Span
from odradek.schemas.sampling import COLDEST

Truncated = Literal["train", "mask", "refuse"]
SAMPLING: Final = "sampling"
TRUNCATED: Final = "truncated"


@dataclass(frozen=True)
class Take:
    """Which tokens of a sequence are used.

    Attributes:
        temperature: Of replies whose temperature is not recorded, as in logs of older proxies.
        truncated: What becomes of replies that were cut by length.
    """

    temperature: float = 1.0
    truncated: Truncated = "train"


TAKE: Final = Take()
"""The defaults."""


@dataclass(frozen=True, eq=False)
class TokenSampling:
    """The sampling of a sequence's tokens; arrays have the shape (n,).

    Attributes:
        trained: Where a token is trained on; all that were sampled, where the sequence is refused.
        temperatures: At which each was sampled, float32; 1 where none was.
        unfit: Why the sequence is refused, as the ledger names it, or "".
        altered: Sampled tokens that are masked because of their sampling.
        truncated: Replies that were cut by length.
    """

    trained: npt.NDArray[np.bool_]
    temperatures: npt.NDArray[np.float32]
    unfit: str = ""
    altered: int = 0
    truncated: int = 0


def drawn_of(sequence: Sequence, n: int, take: Take = TAKE) -> TokenSampling:
    """Read the spans of a sequence of n tokens.

    The first token of a sequence has no prediction, so it is never trained on.
    """
    sampled = np.zeros(n, dtype=np.bool_)
    trained = np.zeros(n, dtype=np.bool_)
    temperatures = np.ones(n, dtype=np.float32)
    altered = truncated = 0
    for span in sequence.spans:
        start = max(span.start, 1)
        sampled[start : span.end] = True
        temperatures[start : span.end] = _temperature(span, take)
        truncated += span.truncated
        if not _whole(span, take):
            altered += max(0, span.end - start)
        elif not (span.truncated and take.truncated == "mask"):
            trained[start : span.end] = True
    unfit = ""
    if truncated and take.truncated == "refuse":
        unfit = TRUNCATED
    elif sampled.any() and not trained.any():
        unfit = SAMPLING if altered else TRUNCATED
    return TokenSampling(sampled if unfit else trained, temperatures, unfit, altered, truncated)


def altering_fields(episode: Episode) -> set[str]:
    """The fields of requests for which replies of an episode are not trained on."""
    spans = (span for sequence in episode.sequences for span in sequence.spans)
    return {span.altered_by or "temperature" for span in spans if not _whole(span, TAKE)}


def _temperature(span: Span, take: Take) -> float:
    return take.temperature if span.temperature is None else span.temperature


def _whole(span: Span, take: Take) -> bool:
    """Whether a reply came from the whole distribution, at a temperature to divide by."""
    return not span.altered_by and _temperature(span, take) >= COLDEST
