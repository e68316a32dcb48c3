"""Announce policies and ledger entries on the log. The seam to Kafka."""

from typing import Protocol

from odradek.schemas.events import Policy, Step


class Announcer(Protocol):
    """Appends durably; returns once the log has it."""

    def policy(self, policy: Policy) -> None:
        """Announce weights that the engines have."""
        ...

    def step(self, step: Step) -> None:
        """Add an entry to the ledger."""
        ...


class ListedAnnouncements:
    """An announcer that keeps events in memory, for tests and benches."""

    def __init__(self) -> None:
        self.policies: list[Policy] = []
        self.steps: list[Step] = []

    def policy(self, policy: Policy) -> None:
        """See `Announcer`."""
        self.policies.append(policy)

    def step(self, step: Step) -> None:
        """See `Announcer`."""
        self.steps.append(step)
