"""Count batches without a learning signal, and warn after many in a row. Pure."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from odradek.schemas.events import Batch

MANY: Final = 100
"""Batches in a row after which a line is due."""
ALONE: Final = "group_of_one"
ADVICE: Final = {
    ALONE: "a sample is compared with the others of its group: set group_size to 4 or more",
    "zero_variance": "all samples of a group were worth the same: look at the rewards, or choose "
    "tasks that are neither too easy nor too hard",
    "stale": "all rows were too old: raise max_staleness, or lower open_groups",
    "sampling": "no reply was drawn from the whole distribution: the log names the fields; take "
    "them out of the agent, or start the proxy with ODRADEK_PROXY_SAMPLING=force",
    "too_long": "all rows were longer than max_row_tokens",
    "empty": "samples failed or were not rewarded: `odradek tail rl.batches.v1` says why",
}
"""What to do about the commonest reason; others are explained by the ledger."""
ELSE: Final = "`refused` in `odradek tail rl.steps.v1` says why"


class UninformativeBatches:
    """Counts training batches in a row of which no row is used."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()

    def see(self, batch: Batch, reasons: Iterable[str], *, rows: int) -> str:
        """Note a batch; return a line for people when it is the `MANY`th of its kind in a row.

        Args:
            batch: What came.
            reasons: Why it, or rows of it, are not used.
            rows: How many are used.
        """
        if batch.purpose != "train":
            return ""
        if rows:
            self._reasons.clear()
            return ""
        self._reasons[_of(batch, reasons)] += 1
        return self._line() if self._reasons.total() == MANY else ""

    def _line(self) -> str:
        ranked = self._reasons.most_common()
        counted = ", ".join(f"{many} {reason}" for reason, many in ranked)
        advice = ADVICE.get(ranked[0][0].partition(":")[0], ELSE)
        return f"{MANY} batches in a row taught nothing ({counted}): {advice}"


def _of(batch: Batch, reasons: Iterable[str]) -> str:
    """The one reason that a batch is counted under: the commonest of its rows."""
    if batch.group_size == 1 and batch.episodes:
        return ALONE
    ranked = Counter(reasons).most_common(1)
    return ranked[0][0] if ranked else "no_rows"
