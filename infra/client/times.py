"""Times as people write them."""

import re
from datetime import UTC, datetime
from typing import Final

from odradek.infra.errors import InvalidTime

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGO: Final = re.compile(r"-?(\d+(?:\.\d+)?)([smhd])")


def parse_time(text: str, now: float) -> float:
    """Unix seconds of an ISO 8601 time (UTC where it names no zone), or of 90s, 10m, 2h, 7d ago.

    How long ago may stand behind a minus, too. Raises InvalidTime.
    """
    if match := _AGO.fullmatch(text):
        return now - float(match[1]) * _SECONDS[match[2]]
    try:
        stamp = datetime.fromisoformat(text)
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidTime(
            f"invalid time {text!r}: write 2026-01-31T12:00 (UTC), or 10m, 2h, 7d for that long ago"
        ) from None
