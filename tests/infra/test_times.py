"""Times on the command line and in subscriptions."""

import pytest

from odradek.infra.client.times import parse_time
from odradek.infra.errors import InvalidTime


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(940, "60s"), (400, "10m"), (400, "-10m"), (0, "1970-01-01"), (90, "1970-01-01T00:01:30Z")],
)
def test_a_time_is_iso_or_how_long_ago(seconds, text):
    """Without a zone it is UTC."""
    assert seconds == parse_time(text, now=1000.0)


@pytest.mark.parametrize("text", ["soon", "10", "10y", "2026-13-01"])
def test_a_text_that_is_no_time_is_refused(text):
    """In one line that says how to write one."""
    with pytest.raises(InvalidTime, match="invalid time"):
        parse_time(text, now=1000.0)
