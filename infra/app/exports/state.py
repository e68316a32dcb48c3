"""How far an export has come: a small file beside what it writes.

It is written after the sink's flush. Whoever dies between the two leaves a sink that holds more
than the file says. So the next export first takes the sink back to the file's step
(`MetricsSink.rewind`), and no step stands there twice.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from odradek.infra.errors import ExportRefused


class ExportState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one export of one run has written."""

    run: str
    sink: str
    ledger: str
    """The topic that it reads, with its prefix."""
    offset: int = 0
    """The ledger's next entry."""
    incarnation: int = 0
    """The trainer's newest start that was met."""
    step: int = 0
    """The last step that the sink holds."""
    attempt: int = 1
    """Counts the times that the run was written from its first step."""


class StateFile:
    """The state of one export on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the export for as long as the block, or this process, lasts.

        Raises ExportRefused where another process holds it: two would write each step twice.
        """
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ExportRefused(
                    f"another export writes beside {self.path}: end it, or give --out another "
                    "folder"
                ) from None
            yield
        finally:
            os.close(handle)

    def load(self, expected: ExportState) -> ExportState:
        """What was written; `expected`, a state of nothing written, where there is no file yet.

        Raises ExportRefused where the file is no state, or that of another ledger.
        """
        try:
            state = msgspec.json.decode(self.path.read_bytes(), type=ExportState)
        except FileNotFoundError:
            return expected
        except msgspec.DecodeError as error:
            raise ExportRefused(
                f"{self.path} is no state of an export ({error}): give --from-start to write the "
                "run anew"
            ) from None
        if (state.run, state.sink, state.ledger) != (expected.run, expected.sink, expected.ledger):
            raise ExportRefused(
                f"{self.path} is the state of run {state.run!r} of {state.ledger}: give --out "
                "another folder, or --from-start to write the run anew"
            )
        return state

    def anew(self, begun: ExportState) -> ExportState:
        """`begun` as the next attempt after whatever was written, readable or not."""
        try:
            before = msgspec.json.decode(self.path.read_bytes(), type=ExportState).attempt
        except (FileNotFoundError, msgspec.DecodeError):
            before = 0
        return msgspec.structs.replace(begun, attempt=before + 1)

    def save(self, state: ExportState) -> None:
        """Replace the file, durably."""
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
