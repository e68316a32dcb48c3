"""What did not hold, and who found it."""

from typing import NamedTuple


class Failure(NamedTuple):
    """One thing that did not hold."""

    check: str
    """Name of the check that found it, or of what went wrong with the world itself:

    `rest` (it did not come to rest), `ended` (a process ended as none may), `unhandled` (nobody
    caught an error), `unjudged` (a check could not read the logs). A planted fault that shows only
    as one of these has not been found.
    """
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.what}"
