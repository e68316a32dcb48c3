"""Hi-lo: find a number from 1 to 3 with two guesses and one hint."""

import random

RANGE = (1, 2, 3)
GUESSES = 2
QUESTION = "1-3?"


class HiLo:
    """One game. The best play guesses 2 and follows the hint; chance finds 5 of 9."""

    def __init__(self, secret: int) -> None:
        self.secret = secret
        self.guesses = 0
        self.score = 0.0
        self.over = False

    def opening(self) -> list[dict[str, str]]:
        """The messages before the first guess."""
        return [{"role": "user", "content": QUESTION}]

    def answer(self, reply: str) -> list[dict[str, str]]:
        """Take a guess; returns what it adds to the messages. What is no guess loses the game."""
        self.guesses += 1
        guess = int(reply) if reply in {"1", "2", "3"} else None
        self.score = float(guess == self.secret)
        self.over = self.score > 0 or guess is None or self.guesses == GUESSES
        spoken = [{"role": "assistant", "content": reply}]
        if guess is None or self.over:
            return spoken
        hint = "high" if self.secret > guess else "low"
        return [*spoken, {"role": "user", "content": hint}]


def conversations(n: int = 512, seed: int = 0) -> list[list[dict[str, str]]]:
    """Games of random valid guesses: they teach a new model the form, not the play."""
    chance = random.Random(seed)
    found = []
    for _ in range(n):
        game = HiLo(chance.choice(RANGE))
        messages = game.opening()
        while not game.over:
            messages += game.answer(str(chance.choice(RANGE)))
        found.append(messages)
    return found
