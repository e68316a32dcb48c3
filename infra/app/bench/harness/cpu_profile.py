"""Where a process' CPU goes, sampled while it runs a module.

    python -m odradek.infra.app.bench.harness.cpu_profile FILE MODULE ARGS

The kernel interrupts it after every two milliseconds of CPU (setitimer(2), ITIMER_PROF), and the
innermost frame that belongs to a known part counts; C code counts for the function that called it.
SIGUSR1 begins anew, SIGUSR2 writes the counts to FILE.
"""

import json
import runpy
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from odradek.infra.errors import ProjectError

EVERY_S: Final = 0.002
LOOP: Final = "event loop"
PARTS: Final = (
    (
        "towards the engine",
        ("aiohttp/client", "aiohttp/connector", "/proxy/engines/client", "/proxy/engines/pool"),
    ),
    ("towards the agent", ("aiohttp/web", "/proxy/calls/call.py:body_of")),
    ("the log", ("aiokafka/", "/infra/bus/", "/schemas/ids")),
    ("the token", ("/proxy/auth", "/infra/runtime/episode_tokens")),
    ("taken out of the reply", ("chat.py:trim", "chat.py:_trim", "chat.py:_head")),
    ("new against earlier turns", ("/proxy/episodes/history",)),
    (
        "request and reply read",
        ("/proxy/dialects/", "/proxy/wire/", "/proxy/calls/agent_replies", "/baseline.py"),
    ),
    ("the turn made", ("/proxy/log/writer", "/schemas/")),
    ("the call", ("/proxy/", "/infra/")),
)
"""Names of parts, and patterns of their code's `file:function`; the first match counts."""

_counts: Counter[str] = Counter()
_part_of_code: dict[CodeType, str] = {}


def _part_of(frame: FrameType | None) -> str:
    """The part that a frame works for: of the innermost code that is known to belong to one."""
    while frame is not None:
        code = frame.f_code
        if (part := _part_of_code.get(code)) is None:
            part = _part_of_code[code] = part_of_function(code.co_filename, code.co_name)
        if part:
            return part
        frame = frame.f_back
    return LOOP


def part_of_function(file: str, function: str) -> str:
    """The part that a function belongs to, "" for code that counts for its caller."""
    place = f"{file}:{function}"
    if "aiohttp" not in file and "aiokafka" not in file and "/odradek/" not in file:
        return ""
    if "/infra/app/cli/" in file or place.endswith("/process.py:run") or file == __file__:
        return LOOP
    return next(
        (part for part, patterns in PARTS if any(pattern in place for pattern in patterns)), ""
    )


def _sample(_: int, frame: FrameType | None) -> None:
    _counts[_part_of(frame)] += 1


def main(out: Path, module: str, *arguments: str) -> None:
    """Run a module under observation."""

    def write(*_: object) -> None:
        draft = out.with_suffix(".draft")
        draft.write_text(json.dumps(_counts))
        draft.replace(out)

    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, lambda *_: _counts.clear())
    signal.signal(signal.SIGUSR2, write)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def read_counts(file: Path, timeout_s: float = 10.0) -> Counter[str]:
    """The counts, once they are there. Raises ProjectError if they never are."""
    end = time.monotonic() + timeout_s
    while not file.exists():
        if time.monotonic() > end:
            raise ProjectError("a process under observation did not write its CPU counts")
        time.sleep(0.01)
    return Counter(json.loads(file.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
