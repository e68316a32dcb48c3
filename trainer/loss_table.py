"""The losses, in one table without torch: settings, the command line and the step derive from it.

A loss of your own is a function that `module:function` names: docs/learning.md. One that ships is a
file with its function and a `Loss`, and one line here: docs/extend.md. `trainer.recipes` says which
go with what.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.imports import parts


@dataclass(frozen=True)
class LossEntry:
    """What is known of a loss before torch is imported.

    Attributes:
        place: `module:name` of its `Loss` (`odradek.trainer.losses.loss`).
        clips_below: Whether `epsilon_low` has an effect.
        clips_above: Whether `epsilon_high` has one.
        clips_twice: Whether `dual_clip` has one.
    """

    place: str
    clips_below: bool = True
    clips_above: bool = True
    clips_twice: bool = False


_HERE: Final = "odradek.trainer.losses.loss"
LOSSES: Final[dict[str, LossEntry]] = {
    "grpo": LossEntry(f"{_HERE}:GRPO", clips_twice=True),
    "dapo": LossEntry(f"{_HERE}:DAPO", clips_twice=True),
    "dr_grpo": LossEntry(f"{_HERE}:DR_GRPO", clips_twice=True),
    "bnpo": LossEntry(f"{_HERE}:BNPO", clips_twice=True),
    "gspo": LossEntry(f"{_HERE}:GSPO", clips_twice=True),
    "cispo": LossEntry(f"{_HERE}:CISPO", clips_below=False),
    "sapo": LossEntry(f"{_HERE}:SAPO", clips_below=False, clips_above=False),
    "luspo": LossEntry(f"{_HERE}:LUSPO", clips_twice=True),
    "gmpo": LossEntry(f"{_HERE}:GMPO"),
    "rloo": LossEntry(f"{_HERE}:RLOO"),
    "reinforce_pp": LossEntry(f"{_HERE}:REINFORCE_PP", clips_twice=True),
    "dppo": LossEntry(f"{_HERE}:DPPO"),
}
"""Losses by the name that `ODRADEK_TRAINER_LOSS` takes."""
OWN: Final = LossEntry("", clips_twice=True)
"""What may be true of a person's loss."""

Correction = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
"""Importance weights, by TRL's names: of tokens or whole rows; truncated (TIS) or masked (MIS)."""
KlForm = Literal[
    "k1", "k2", "k3", "k1_weighted", "k2_weighted", "k3_weighted",
    "k1_reward", "k2_reward", "k3_reward",
]  # fmt: skip
"""The estimator, and where it goes: into the loss, importance-weighted or not, or the reward."""


def named(name: str) -> bool:
    """Whether a name is of the form `module:function`."""
    try:
        parts(name)
    except NoSuchName:
        return False
    return True


def entry_of(name: str) -> LossEntry:
    """What is known of a loss, of the table or of a person's own."""
    return LOSSES.get(name, OWN)


def _loss(name: str) -> str:
    if name not in LOSSES and not named(name):
        raise ValueError(f"there is no loss {name!r}: give {listed()}, or your own module:function")
    return name


LossName = Annotated[str, AfterValidator(_loss)]
"""A name of the table, or `module:function`; pydantic refuses any other."""


def listed() -> str:
    """The names for people, such as `grpo, dapo or cispo`."""
    *first, last = LOSSES
    return f"{', '.join(first)} or {last}"
