"""Two agents find a number from 1 to 3: the asker guesses, the answerer says where it lies."""

import random

RANGE = (1, 2, 3)
QUESTION = "1-3?"
LOW, HIGH = "low", "high"
SAID = {"l": LOW, "h": HIGH}
"""What the answerer writes, and what the asker reads of it."""


def opening() -> list[dict[str, str]]:
    """The asker's messages before its first guess."""
    return [{"role": "user", "content": QUESTION}]


def guess_of(reply: str) -> int | None:
    """The number that the asker named, None where it named none."""
    return int(reply) if reply in {"1", "2", "3"} else None


def question(guess: int, secret: int) -> list[dict[str, str]]:
    """The answerer's messages: the guess and the number."""
    return [{"role": "user", "content": f"{guess}:{secret}?"}]


def truth(guess: int, secret: int) -> str:
    """What the answerer should write about a wrong guess."""
    return "l" if guess < secret else "h"


def conversations(n: int = 512, seed: int = 0) -> list[list[dict[str, str]]]:
    """What a new model is taught: the form of both parts, and to read; not how to play.

    Guesses and answers are random, so the pair wins as often as chance. The lessons want a digit
    of the answerer's question, or a hint's first letter, given back.
    """
    chance = random.Random(seed)
    samples = []
    for _ in range(n):
        first, second, secret = (chance.choice(RANGE) for _ in range(3))
        hint = chance.choice(tuple(SAID))
        asking = [*opening(), _said(str(first))]
        samples.append([*asking, {"role": "user", "content": SAID[hint]}, _said(str(second))])
        samples.append([*question(first, secret), _said(hint)])
    for hint in (LOW, HIGH):
        samples += [[{"role": "user", "content": hint}, _said(hint[0])]] * (n // 8)
    for guess in RANGE:
        for secret in RANGE:
            text = f"{guess}:{secret}"
            samples += [[{"role": "user", "content": f"{text}<"}, _said(str(guess))]] * (n // 32)
            samples += [[{"role": "user", "content": f"{text}>"}, _said(str(secret))]] * (n // 32)
    return samples


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
