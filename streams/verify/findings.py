"""Sums that do not match, and what to do about them."""

from dataclasses import dataclass, field
from typing import Final

SLACK_S: Final = 120.0
"""An id is lost, not open, once the log has gone on this long past its last deadline."""

NEXT: Final[dict[str, str]] = {
    "open": (
        "still open: within their deadlines. Wait until the run is through and ask again; if "
        "nothing moves, see that assembler, grouper and dispatcher run (`odradek up`)."
    ),
    "lost": (
        "lost: keep the topics as they are (raise their retention if it is near), look for the "
        "ids in `odradek dlq list` and in `odradek tail rl.turns.v1 --since beginning`, and in "
        "the logs of the process that should have written them."
    ),
    "duplicated": (
        "duplicated: two processes wrote as one, or one wrote twice. See that each instance name "
        "and each run has one process, and that the grouper runs on the Kafka driver."
    ),
    "problems": (
        "wrong: the lines name the run and step. Train no further from its checkpoints; its "
        "batches can be trained on again from the start: `odradek replay --batches 0:N --to "
        "again`, then `odradek train --batches-topic again --replay-of RUN --run again`."
    ),
}
"""One piece of advice for each list."""


@dataclass
class Findings:
    """Lists of ids and sentences; all are empty where everything closes."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """Within their deadlines: a run that is still going on."""
    problems: list[str] = field(default_factory=list)

    @property
    def none(self) -> bool:
        """Whether everything closes."""
        return not (self.lost or self.duplicated or self.open or self.problems)

    def lists(self) -> dict[str, list[str]]:
        """Each list sorted, nothing in it twice."""
        return {
            name: sorted(set(getattr(self, name)))
            for name in ("lost", "duplicated", "open", "problems")
        }
