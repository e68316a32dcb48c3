"""Judges from two answers which distribution an engine's log probabilities are of.

If the temperature is halved, the distances between the log probabilities of the likeliest tokens
double. Pure; `odradek.proxy.engines.logprobs_probe` asks.
"""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from odradek.schemas.sampling import number

WARM: Final = 1.0
COOL: Final = 0.5
LEAST_SPREAD: Final = 1e-3
"""Distances below it, in nats, are too near to rounding to prove anything."""
SLACK: Final = 1.3
"""Two calls of one engine may differ by this factor in a probability: batches, bf16."""
FLAWLESS: Final = 1e-3
"""What a log probability of 0 may be rounded up to."""


class LogprobsMode(Enum):
    """The distribution of an engine's log probabilities."""

    PROCESSED = "processed"
    """The distribution after the temperature."""
    RAW = "raw"
    """Another one, or no distribution."""
    UNPROVED = "unproved"
    """Nobody knows. At temperature 1 it makes no difference."""


def judge(warm: Mapping[str, float], cool: Mapping[str, float]) -> LogprobsMode:
    """Judge an engine by log probabilities at WARM and at COOL, half that temperature.

    With p at temperature 1, the log probabilities at 1/2 are 2 log p - log Z, Z = sum p^2. So their
    distances double. Each token gives the same Z. It is at least the sum over the tokens of the
    answer, and at most that sum plus what the other tokens can add. Logits double their distances,
    too, but give Z = 1.
    """
    tokens = [t for t in warm if t in cool and math.isfinite(warm[t] + cool[t])]
    at_warm, at_cool = ([logprobs[t] for t in tokens] for logprobs in (warm, cool))
    if len(tokens) < 2:
        return LogprobsMode.UNPROVED
    if max(at_warm + at_cool) > FLAWLESS or max(map(_sum, (at_warm, at_cool))) > SLACK:
        return LogprobsMode.RAW
    x, y = _centred(at_warm), _centred(at_cool)
    spread = sum(a * a for a in x)
    if spread < LEAST_SPREAD**2:
        return LogprobsMode.UNPROVED
    slope = sum(a * b for a, b in zip(x, y, strict=True)) / spread
    if not 1.5 < slope < 2.5:
        return LogprobsMode.RAW if 0.5 < slope < 1.5 else LogprobsMode.UNPROVED
    least = sum(math.exp(2 * value) for value in at_warm)
    most = least + max(0.0, 1 - _sum(at_warm)) * math.exp(min(at_warm))
    z = math.exp((2 * sum(at_warm) - sum(at_cool)) / len(tokens))
    return LogprobsMode.PROCESSED if least / SLACK <= z <= most * SLACK else LogprobsMode.RAW


def _sum(logarithms: Sequence[float]) -> float:
    return sum(map(math.exp, logarithms))


def _centred(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def doubt(mode: LogprobsMode | None, sampling: Mapping[str, Any]) -> str:
    """Why a reply of such an engine cannot be trained on, "" if it can."""
    if mode is None or mode is LogprobsMode.PROCESSED:
        return ""
    harmless = mode is LogprobsMode.UNPROVED and number(sampling.get("temperature")) == WARM
    return "" if harmless else "logprobs_mode"
