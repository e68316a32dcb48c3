"""When keys of tokens are fetched again. Pure: the caller has the clock."""

from typing import Final

FRESH_S: Final = 3600.0
"""How long keys are used without being asked for again."""
AGAIN_S: Final = 30.0
"""The least time between two fetches for the sake of a key id that is not there."""
FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0
"""The first and the longest wait after a fetch that failed; each is twice the one before."""


class RefreshSchedule:
    """Says whether to fetch now. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._fetched_at: float | None = None
        self._not_before = float("-inf")
        self._wait = FIRST_S

    def due(self, now: float, *, absent: bool) -> bool:
        """Whether to fetch: there are no keys, they are old, or a key id is absent."""
        if now < self._not_before:
            return False
        if self._fetched_at is None:
            return True
        age = now - self._fetched_at
        return age >= FRESH_S or (absent and age >= AGAIN_S)

    def fetched(self, now: float) -> None:
        """The keys are here."""
        self._fetched_at = now
        self._not_before = float("-inf")
        self._wait = FIRST_S

    def failed(self, now: float) -> None:
        """They could not be fetched: wait, longer each time."""
        self._not_before = now + self._wait
        self._wait = min(self._wait * 2, LONGEST_S)
