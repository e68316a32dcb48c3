"""One trainer at a time in a folder of checkpoints."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from odradek.trainer.commit.durable_files import make_durably, room
from odradek.trainer.errors import BadSettings


@contextlib.contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Hold a folder for as long as the block, or this process, lasts; the kernel lets go of it.

    Raises BadSettings where another process holds it: two trainers of one run would train on each
    batch twice, and rename their checkpoints over each other's.
    """
    with room(root):
        make_durably(root)
        handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise BadSettings(
                f"another trainer (process {holder}) works in {root}: end it, or choose another "
                "output_dir"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
