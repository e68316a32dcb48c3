"""Policy versions: each number stands for one set of weights, taken by one start of one trainer."""

from odradek.schemas.events import Policy, Step
from odradek.streams.verify.findings import Findings


class VersionClaims:
    """Who took which number, and which weights went by it."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._weights: dict[tuple[str, int], set[str]] = {}
        self._takers: dict[tuple[str, int], set[tuple[str, int]]] = {}
        self._announced: set[tuple[str, int]] = set()

    def step(self, entry: Step) -> None:
        """The version in force at an entry."""
        if not entry.version:
            return
        name = (entry.policy or f"of run {entry.run}", entry.version)
        self._takers.setdefault(name, set()).add((entry.run, entry.incarnation))
        if entry.weights:
            self._weights.setdefault(name, set()).add(entry.weights)

    def policy(self, policy: Policy) -> None:
        """An announcement."""
        name = (policy.name, policy.version)
        self._announced.add(name)
        if policy.digest:
            self._weights.setdefault(name, set()).add(policy.digest)

    def check(self, *, cut: bool) -> None:
        """Find numbers that were used twice, or that no trainer took.

        Args:
            cut: Whether retention has taken the beginning of the ledger.
        """
        for (policy, version), digests in sorted(self._weights.items()):
            if len(digests) > 1:
                shown = " and ".join(sorted(digest[:12] for digest in digests))
                self._findings.problems.append(
                    f"policy {policy}: version {version} stands for different weights ({shown})"
                )
        for (policy, version), takers in sorted(self._takers.items()):
            if len(takers) > 1:
                shown = " and ".join(f"start {n} of run {run}" for run, n in sorted(takers))
                self._findings.problems.append(
                    f"policy {policy}: version {version} was used by {shown}"
                )
        policies = {policy for policy, _ in self._takers}
        for policy, version in sorted(self._announced - self._takers.keys()):
            if policy in policies and not cut:
                self._findings.problems.append(
                    f"policy {policy}: version {version} was announced, but no step took it"
                )
