"""Games of hi-lo that a model learns: the demo's, and a harder one."""

import random
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.trainer.hilo import HiLo

Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class LearnedGame:
    """Find a number from 1 to `high` with so many guesses; a wrong one gets "low" or "high".

    Attributes:
        target: Greedy success that counts as learned. With n guesses 2^n - 1 numbers can be told
            apart, so of 8 numbers three guesses find 7 at best.
        secrets: Of a group's samples.
        warm_up_steps: Supervised steps of the model that a run begins with.
        most: Fresh rollouts after which a run gives up.
        learning: Settings of the trainer, in place of the arms'.
    """

    name: str
    high: int
    guesses: int
    target: float
    secrets: tuple[int, ...]
    warm_up_steps: int
    most: int
    learning: dict[str, Any] = field(default_factory=dict)

    def begin(self, secret: int) -> HiLo:
        """One round."""
        opening = [{"role": "user", "content": f"1-{self.high}?"}]
        return HiLo(secret, guesses=self.guesses, high=self.high, messages=opening)

    def reward_of(self, game: HiLo) -> float:
        """As in the demo: 1 for the number, and a tenth for guesses that are numbers of the game."""
        valid = {str(number) for number in range(1, self.high + 1)}
        said = [one["content"] for one in game.messages if one["role"] == "assistant"]
        return float(game.won) + 0.1 * all(text in valid for text in said)

    def conversations(self, n: int = 512, seed: int = 0) -> list[Conversation]:
        """The form of the game and the look of a hint, as in the demo: random guesses."""
        chance = random.Random(seed)
        numbers = range(1, self.high + 1)
        samples = []
        for _ in range(n):
            game = self.begin(chance.choice(numbers))
            while not game.over:
                game.answer(str(chance.choice(numbers)))
            samples.append(game.messages)
        for hint in ("low", "high"):
            lesson = [{"role": "user", "content": hint}, {"role": "assistant", "content": hint[0]}]
            samples += [lesson] * (n // 4)
        return samples


GAMES: Final = {
    "small": LearnedGame(
        "small", high=3, guesses=2, target=0.9, secrets=(1, 2, 3, 1, 2, 3, 1, 2),
        warm_up_steps=60, most=8000,
    ),
    "large": LearnedGame(
        "large", high=8, guesses=3, target=6 / 8, secrets=(1, 2, 3, 4, 5, 6, 7, 8),
        warm_up_steps=60, most=16_000, learning={"kl": 0.02},
    ),
}  # fmt: skip
