"""Judges: what a conversation is worth, and putting that on the log.

A `Judge` says a number or raises RewardFailed; `Verdicts` decides which conversations it is asked
about, and publishes what it says. `odradek.streams.rewards` feeds them from a consumer group.
"""

from odradek.streams.judges.judge import Function, Judge, load
from odradek.streams.judges.verdicts import Verdicts, Whose

__all__ = ["Function", "Judge", "Verdicts", "Whose", "load"]
