"""A process that tells how many asyncio tasks it has: `python -m tests.chaos.processes.task_counter FOLDER VERB ...`."""

import os
import sys
import threading
import time
from asyncio import tasks
from pathlib import Path

EVERY_S = 2.0


def tell(folder: Path) -> None:
    """Write the count into the file of this process, now and then, from a thread of its own."""
    mine = folder / str(os.getpid())
    while True:
        mine.write_text(str(len(tasks._all_tasks)))
        time.sleep(EVERY_S)


if __name__ == "__main__":
    where, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    threading.Thread(target=tell, args=(where,), daemon=True).start()
    from odradek.infra.app.cli import main

    main()
