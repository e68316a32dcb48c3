"""The low-water mark: from where a new owner must read to fold into the same state.

It is the opening of the oldest open story, with one exception. An opening that was repeated while
its story was open changed nothing then; but a new owner who began between the two would take the
repeat for an opening, and raise a ghost of a story that is closed. So a closed story with a repeat
still holds the mark at its own opening, until the mark has passed the repeat as well. A child's
repeat raises no ghost: whoever does not know its parent takes it for an orphan.
"""


class LowWater:
    """Closed stories whose openings were repeated."""

    def __init__(self) -> None:
        self._repeated: list[tuple[int, int]] = []

    def closed(self, opening: int, repeat: int) -> None:
        """A story has closed: offsets of its opening, and of the opening's last repeat or -1."""
        if repeat > opening:
            self._repeated.append((opening, repeat))

    def mark(self, oldest: int) -> int:
        """The mark, where `oldest` is the opening of the oldest open story, else the position.

        Never falls as `oldest` rises. A story is forgotten once its repeat lies below the mark, not
        just below `oldest`: another story may hold the mark lower than that.
        """
        mark = oldest
        while below := [first for first, last in self._repeated if first < mark <= last]:
            mark = min(below)
        self._repeated = [pair for pair in self._repeated if pair[1] >= mark]
        return mark
