"""The losses, in one table without torch: settings, the command line and the step derive from it.

A loss of your own is a file with its function and a `Loss`, and one line here: docs/extend.md.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal


@dataclass(frozen=True)
class LossEntry:
    """What is known of a loss before torch is imported.

    Attributes:
        place: `module:name` of its `Loss` (`odradek.trainer.step.losses`).
        clips_below: Whether `epsilon_low` has an effect.
    """

    place: str
    clips_below: bool = True


LOSSES: Final[dict[str, LossEntry]] = {
    "grpo": LossEntry("odradek.trainer.step.losses:GRPO"),
    "dapo": LossEntry("odradek.trainer.step.losses:DAPO"),
    "dr_grpo": LossEntry("odradek.trainer.step.losses:DR_GRPO"),
    "gspo": LossEntry("odradek.trainer.step.losses:GSPO"),
    "cispo": LossEntry("odradek.trainer.step.losses:CISPO", clips_below=False),
}
"""Losses by the name that `ODRADEK_TRAINER_LOSS` takes."""

if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(LOSSES)]
"""A name of the table; pydantic refuses any other."""


def listed() -> str:
    """The names for people, such as `grpo, dapo or cispo`."""
    *first, last = LOSSES
    return f"{', '.join(first)} or {last}"
