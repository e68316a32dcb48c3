"""The choices of a reply: as many as its call asked for, and counted from 0.

Translated dialects show the first, and clients take the first of a list, or go by the numbers. So
where an engine counts otherwise its choices are counted anew, for the log and the agent alike. If
an engine sends more choices than it was asked for, nobody knows which of them the agent has seen.
"""

import msgspec

from odradek.proxy.wire.shapes import UNSURE, NormalizedReply


class Numbering:
    """Gives the choices of a reply their numbers.

    Args:
        expected: How many its call asked for; 0 if that is not known.
    """

    def __init__(self, expected: int) -> None:
        self.moved = False
        """Whether one has another number than the engine gave it."""
        self.spoilt = ""
        """Why none of them can be trained on, "" if they can."""
        self._expected = expected
        self._used: set[int] = set()

    def number(self, index: int) -> int:
        """The number of a choice that begins."""
        number, used = index, self._used
        if self._expected and (index in used or not 0 <= index < self._expected):
            number = next(n for n in range(len(used) + 1) if n not in used)
            self.moved = self.moved or number != index
            # A single choice is the one that was asked for. Of several nobody knows which is which.
            if self._expected > 1 or number:
                self.spoilt = UNSURE
        used.add(number)
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
    for entry, choice in zip(value["choices"], regular.body.choices, strict=True):
        entry["index"] = choice.index
    return msgspec.json.encode(value)
