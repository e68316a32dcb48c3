"""Starts of a console verb without Python's own: torch and TRL are imported once, each start forks.

A start is a process of its own, killed with SIGKILL like any other; only its imports are shared.
`python -m tests.chaos.processes.fork_server` reads one JSON line a start, `{"env": {...}, "log": path, "verb": [...]}`,
and answers with the exit code once it has ended (-9: killed).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.suite.child_processes import python_path


class ForkServer:
    """The process that forks, as a context."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.processes.fork_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": python_path(),
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, verb: list[str], env: dict[str, str], log: Path) -> int:
        """Run a verb to its end; its exit code."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"verb": verb, "env": env, "log": str(log)}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def live(request: dict[str, Any]) -> None:
    """In the child: be that process."""
    log = os.open(request["log"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    from odradek.infra.app.cli import main
    from odradek.infra.runtime import crash_points

    crash_points.arm(os.environ.get("ODRADEK_CRASH_AT", ""))
    sys.argv = ["odradek", *request["verb"]]
    main()


def main() -> None:
    """Fork for each line, one after the other."""
    import odradek.trainer.process  # noqa: F401 - what takes so long

    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            live(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
