"""What a person says of an episode, or of two, as rewards. Pure."""

from typing import Final, Literal

from msgspec import Struct

from odradek.infra.errors import VerdictRefused
from odradek.infra.runtime.reward_signatures import PERSON
from odradek.schemas.errors import NoNumber, NotFinite
from odradek.schemas.events import Reward
from odradek.schemas.numbers import number
from odradek.schemas.topics import NAME

Better = Literal["left", "right", "equal"]
"""Which of two is better."""
LONGEST: Final = 2000
"""Characters of an explanation."""


class RewardScale(Struct, frozen=True):
    """The least and the highest reward that a person gives."""

    low: float = 0.0
    high: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "RewardScale":
        """LOW:HIGH. Raises VerdictRefused."""
        try:
            low, high = (number(float(end), "an end") for end in text.split(":"))
        except (ValueError, NotFinite, NoNumber):
            low, high = 1.0, 0.0
        if low >= high:
            raise VerdictRefused(f"{text!r} is no scale: write LOW:HIGH, such as 0:1 or -1:1")
        return cls(low, high)

    @property
    def middle(self) -> float:
        """What both of two get that are equally good."""
        return (self.low + self.high) / 2


def source_of(person: str) -> str:
    """The source of a person's rewards. Raises VerdictRefused for what is no name."""
    if not NAME.fullmatch(person):
        raise VerdictRefused(
            f"{person!r} cannot name a person: use up to 63 letters, digits, - and _"
        )
    return f"{PERSON}{person}"


def verdict(
    person: str,
    episode_id: str,
    component: str,
    value: float,
    *,
    why: str = "",
    scale: RewardScale | None = None,
) -> Reward:
    """A person's reward for an episode.

    Args:
        person: Who says it.
        episode_id: Of what.
        component: Which component it is for.
        value: How much.
        why: In words, if they are wanted.
        scale: What the value must lie in; by default 0 to 1.

    Raises VerdictRefused.
    """
    scale = scale or RewardScale()
    if not NAME.fullmatch(component):
        raise VerdictRefused(
            f"{component!r} cannot name a component: use up to 63 letters, digits, - and _"
        )
    if not scale.low <= value <= scale.high:
        raise VerdictRefused(
            f"{value:g} does not lie on the scale from {scale.low:g} to {scale.high:g}: give such "
            "a number, or another scale"
        )
    if len(why) > LONGEST:
        raise VerdictRefused(f"the explanation has more than {LONGEST} characters: shorten it")
    return Reward(
        episode_id=episode_id,
        component=component,
        value=value,
        source=source_of(person),
        explanation=why,
    )


def pair_verdicts(
    person: str,
    pair: tuple[str, str],
    component: str,
    better: Better,
    *,
    scale: RewardScale | None = None,
) -> tuple[Reward, Reward]:
    """A person's rewards for two episodes: the scale's ends, or its middle where they are equal.

    Each names the other in its explanation, so that what was compared can be looked up.

    Args:
        person: Who says it.
        pair: Ids of the left one and the right one.
        component: Which component it is for.
        better: Which is better.
        scale: By default 0 to 1.

    Raises VerdictRefused.
    """
    scale = scale or RewardScale()
    left, right = pair
    if left == right:
        raise VerdictRefused(f"episode {left} cannot be compared with itself")
    values = {
        "left": (scale.high, scale.low),
        "right": (scale.low, scale.high),
        "equal": (scale.middle, scale.middle),
    }[better]
    words = {
        "left": ("better than", "worse than"),
        "right": ("worse than", "better than"),
        "equal": ("equal to", "equal to"),
    }[better]
    return (
        verdict(person, left, component, values[0], why=f"{words[0]} {right}", scale=scale),
        verdict(person, right, component, values[1], why=f"{words[1]} {left}", scale=scale),
    )
