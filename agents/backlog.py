"""Which requests of a partition are finished, and so where a successor must begin."""

from collections import deque

from odradek.agents.errors import IllegalTransition


class Backlog:
    """The low-water mark of one partition: pure, fed with offsets as they come and go.

    A request may finish long before older ones. The mark is the oldest unfinished request, so a
    successor is given everything unfinished again, and some finished requests with it.
    """

    def __init__(self, position: int) -> None:
        self._next = position
        self._order: deque[int] = deque()
        self._finished: set[int] = set()

    @property
    def next(self) -> int:
        """The offset to read next."""
        return self._next

    @property
    def unfinished(self) -> int:
        """How many requests were taken and are not finished."""
        return len(self._order) - len(self._finished)

    def take(self, offset: int) -> None:
        """A request was read. Raises IllegalTransition if it was read before."""
        if offset < self._next:
            raise IllegalTransition(f"offset {offset} comes again, behind {self._next}")
        self._next = offset + 1
        self._order.append(offset)

    def finish(self, offset: int) -> None:
        """Nothing is left to do for a request."""
        self._finished.add(offset)
        while self._order and self._order[0] in self._finished:
            self._finished.discard(self._order.popleft())

    @property
    def low_water(self) -> int:
        """The offset to commit."""
        return self._order[0] if self._order else self._next
