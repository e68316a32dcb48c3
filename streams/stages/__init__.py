"""The stages, each a pure fold over one partition, in the order of the data.

`intake` checks rewards, `assembler` holds an `episode` open until it is sealed and rewarded and
writes it, `continuity` and `samplings` turn its turns into sequences of tokens, and `grouper` makes
one batch of each task's episodes.

`STAGES` is the table of them. Verbs, the processes of a project and the crash points of chaos tests
derive from it. A stage of your own is a file and one line here: docs/extend.md.
"""

from dataclasses import dataclass
from typing import Any, Final

from odradek.infra.runtime.crash_points import TRANSACTION
from odradek.infra.runtime.imports import import_entry

__all__ = ["STAGES", "STAGE_POINTS", "StageEntry"]


@dataclass(frozen=True)
class StageEntry:
    """What is known of a stage before it is imported."""

    process: str
    """Its name among the processes of a project."""
    place: str
    """`module:name` of its `Stage`, or of a function from StreamsSettings to it. The text under
    `HELP` in that module is the help of its verb."""
    about: str
    """The first line of its help."""

    def load(self) -> Any:
        """Its `Stage`, or the function that makes it."""
        return import_entry(self.place)

    def help(self) -> str:
        """What `odradek VERB --help` says."""
        module, _, _ = self.place.partition(":")
        return str(import_entry(f"{module}:HELP"))


_HERE: Final = "odradek.streams.stages"
STAGES: Final[dict[str, StageEntry]] = {
    "intake": StageEntry(
        "intake", f"{_HERE}.intake:of_settings", "Run the intake: rewards join their episode."
    ),
    "assemble": StageEntry(
        "assembler",
        f"{_HERE}.assembler:ASSEMBLE",
        "Run the assembler: turns and rewards become episodes.",
    ),
    "group": StageEntry(
        "grouper", f"{_HERE}.grouper:GROUP", "Run the grouper: episodes become batches."
    ),
}
"""Stages by the verb that runs them, in the order of the data."""
STAGE_POINTS: Final = dict.fromkeys(STAGES, TRANSACTION)
"""Crash points of each stage, by its verb."""
