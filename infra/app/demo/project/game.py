"""Hi-lo: find a number from 1 to 3 with two guesses and one hint."""

import random

RANGE = (1, 2, 3)
GUESSES = 2
QUESTION = "1-3?"
HINTS = LOW, HIGH = "low", "high"


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
        hint = HIGH if self.secret > guess else LOW
        return [*spoken, {"role": "user", "content": hint}]


def conversations(n: int = 512, seed: int = 0) -> list[list[dict[str, str]]]:
    """What a new model is taught: the form of a game and the look of a hint, not the play.

    Games of random valid guesses, and lessons that want a hint's first letter: a model that cannot
    read has nothing to learn from. It still wins as often as chance, 5 of 9.
    """
    chance = random.Random(seed)
    samples = []
    for _ in range(n):
        game = HiLo(chance.choice(RANGE))
        messages = game.opening()
        while not game.over:
            messages += game.answer(str(chance.choice(RANGE)))
        samples.append(messages)
    for hint in HINTS:
        lesson = [{"role": "user", "content": hint}, {"role": "assistant", "content": hint[0]}]
        samples += [lesson] * (n // 4)
    return samples
