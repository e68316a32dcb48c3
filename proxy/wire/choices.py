"""The choices of a reply: as many as its call asked for, and counted from 0.

Translated dialects show the first, and clients take the first of a list, or go by the numbers. So
where an engine counts otherwise its choices are counted anew, for the log and the agent alike. Of
one that sends more than it was asked for nobody knows which of them the agent has seen.
"""

import msgspec

from odradek.proxy.wire.shapes import UNSURE, NormalizedReply


class Numbering:
    """Gives the choices of a reply their numbers.

    Args:
        expected: How many its call asked for; 0 for a call that nobody knows.
    """

    def __init__(self, expected: int) -> None:
        self.moved = False
        """Whether one has another number than the engine gave it."""
        self.spoilt = ""
        """Why none of them can be trained on, "" if they can."""
        self._expected = expected
        self._taken: set[int] = set()

    def number(self, index: int) -> int:
        """The number of a choice that begins."""
        number, taken = index, self._taken
        if self._expected and (index in taken or not 0 <= index < self._expected):
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            self.moved = self.moved or number != index
            # One choice is the one that was asked for. Of several nobody knows which is which.
            if self._expected > 1 or number:
                self.spoilt = UNSURE
        taken.add(number)
        return number


def numbered(regular: NormalizedReply, expected: int) -> NormalizedReply:
    """A whole reply whose choices are counted from 0."""
    numbering = Numbering(expected)
    for choice in regular.body.choices:
        choice.index = numbering.number(choice.index)
    regular.spoilt = regular.spoilt or numbering.spoilt
    if numbering.moved:
        regular.data = renumbered(regular.data, regular)
    return regular


def renumbered(data: bytes, regular: NormalizedReply) -> bytes:
    """A reply's JSON, or a chunk's, anew, with the numbers that its choices have."""
    value = msgspec.json.decode(data)
    for choice, known in zip(value["choices"], regular.body.choices, strict=True):
        choice["index"] = known.index
    return msgspec.json.encode(value)
