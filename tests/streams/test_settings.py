"""Deadlines must fit into each other before anything starts."""

import pytest

from odradek.schemas.events import Timeouts
from odradek.streams.errors import DeadlinesRefused
from odradek.streams.settings import StreamsSettings, check_deadlines


def test_the_defaults_fit():
    """With two attempts and seven days of retention."""
    check_deadlines(Timeouts(), StreamsSettings().max_attempts)


@pytest.mark.parametrize(
    ("timeouts", "attempts", "what"),
    [
        (Timeouts(call_s=600), 2, "call_s"),
        (Timeouts(), 3, "group_s 1800 must be above 2190"),
        (Timeouts(group_s=302_400), 2, "half the retention"),
    ],
)
def test_deadlines_that_contradict_each_other_are_refused(timeouts, attempts, what):
    """In one line that says which must change."""
    with pytest.raises(DeadlinesRefused, match=what):
        check_deadlines(timeouts, attempts)


def test_deadlines_come_from_the_environment(monkeypatch):
    """As JSON; a name that is no deadline is refused."""
    monkeypatch.setenv("ODRADEK_TASK_TIMEOUTS", '{"attempt_s": 60}')
    assert 60 == StreamsSettings().deadlines.attempt_s
    with pytest.raises(DeadlinesRefused, match="runs_s"):
        _ = StreamsSettings(timeouts={"runs_s": 1}).deadlines


def test_an_unknown_setting_is_refused(monkeypatch):
    """A driver that does not exist is no driver."""
    monkeypatch.setenv("ODRADEK_STREAMS_DRIVER", "pigeon")
    with pytest.raises(ValueError, match="driver"):
        StreamsSettings()
