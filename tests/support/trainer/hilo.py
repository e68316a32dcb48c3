"""A number from 1 to 3, two guesses, the hint "low" or "high": the smallest game worth learning."""

import random
from dataclasses import dataclass, field

PROMPT = "Guess a number from 1 to 3."


@dataclass
class HiLo:
    """One round: `messages` is what the model sees next."""

    secret: int
    guesses: int = 2
    high: int = 3
    won: bool = False
    over: bool = False
    messages: list[dict[str, str]] = field(
        default_factory=lambda: [{"role": "user", "content": PROMPT}]
    )

    def answer(self, text: str) -> None:
        """Take a guess: it wins, gets a hint, or ends the round."""
        self.messages.append({"role": "assistant", "content": text})
        self.guesses -= 1
        if text not in {str(n) for n in range(1, self.high + 1)}:
            self.over = True
        elif int(text) == self.secret:
            self.over = self.won = True
        elif self.guesses == 0:
            self.over = True
        else:
            hint = "low" if int(text) < self.secret else "high"
            self.messages.append({"role": "user", "content": hint})


def random_play(n: int, seed: int) -> list[list[dict[str, str]]]:
    """Conversations of random valid guesses, to warm a model up on."""
    rng = random.Random(seed)
    played = []
    for _ in range(n):
        game = HiLo(rng.randint(1, 3))
        while not game.over:
            game.answer(str(rng.randint(1, 3)))
        played.append(game.messages)
    return played
