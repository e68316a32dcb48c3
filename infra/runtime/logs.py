"""Logs of a process: lines for people, or one JSON object a line with the ids of traces.

`ODRADEK_LOG_FORMAT=json` asks for the latter. What a line is about (an episode, a task) comes from
the span around it, as do its trace and span ids. So nobody who logs names them, and they are there
whether or not spans are exported. Lines that repeat are sampled in both forms.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

Format = Literal["text", "json"]

TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
MANY: Final = 5
"""How often one line is written in `WINDOW_S`; further ones are counted."""
WINDOW_S: Final = 10.0
REMEMBERED: Final = 1000
"""Different lines, after which those of windows that are over are forgotten."""

_context: Final[ContextVar[Mapping[str, Any] | None]] = ContextVar("odradek_log", default=None)
_json: Final[list[bool]] = [False]


def wants_context() -> bool:
    """Whether lines say what they are about: where they do not, nobody need remember it."""
    return _json[-1]


@contextmanager
def about(parent: str | None, ids: Mapping[str, Any]) -> Iterator[None]:
    """A block whose lines carry ids, and those of the blocks around it.

    Args:
        parent: The W3C traceparent of what caused the block.
        ids: Such as `episode_id`; never content.
    """
    fields = {**(_context.get() or {}), **ids}
    if parent and parent.count("-") == 3:
        _, fields["trace_id"], fields["span_id"], _ = parent.split("-")
    token = _context.set(fields)
    try:
        yield
    finally:
        _context.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what the line is about."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_context.get() or {}),
        }
        from opentelemetry import trace  # a verb that logs nothing need not wait for it

        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


@dataclass
class LineCount:
    """How often one line came in a window."""

    since: float
    written: int = 0
    dropped: int = 0


class RepeatSampler(logging.Filter):
    """Lets a line through `MANY` times in `WINDOW_S`; the next time it says how often it came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lines: dict[tuple[str, str], LineCount] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        now, text = self._clock(), record.getMessage()
        line = self._lines.setdefault((record.name, text), LineCount(now))
        if now - line.since >= WINDOW_S:
            if line.dropped:
                record.msg, record.args = f"{text} (and {line.dropped} times before)", None
            line.since, line.written, line.dropped = now, 0, 0
        if line.written >= MANY:
            line.dropped += 1
            return False
        line.written += 1
        if len(self._lines) > REMEMBERED:
            self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        old = [key for key, line in self._lines.items() if now - line.since >= WINDOW_S]
        for key in old or list(self._lines):
            del self._lines[key]


def configure(level: str, form: Format) -> None:
    """Write one line per thing on standard error; other libraries speak only to warn.

    Args:
        level: debug, info, warning or error.
        form: For people, or JSON.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(TEXT))
    if level != "debug":
        handler.addFilter(RepeatSampler())
    _json[-1] = form == "json"
    logging.basicConfig(
        handlers=[handler], level=logging.DEBUG if level == "debug" else logging.WARNING
    )
    logging.getLogger("odradek").setLevel(level.upper())
    if level != "debug":
        logging.getLogger("aiokafka").addFilter(_not_a_try)


def _not_a_try(record: logging.LogRecord) -> bool:
    """Leave out each failed try of aiokafka to connect: our own error says it once, and better."""
    return not record.getMessage().startswith("Unable connect to")


def message(line: str) -> str:
    """What a line of either form says: for whoever shows the last line of a log."""
    if line.startswith("{"):
        try:
            return str(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            return line
    return line
