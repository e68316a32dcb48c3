"""What clients of gateways saw is held against the log; each kind of fault has its own check."""

from types import SimpleNamespace

import msgspec
import pytest

from tests.chaos.verification.stream_checks import Stream, streams
from tests.chaos.verification.verdict import Verdict

SEEN = Stream("m", "t", [2, 3, 4], ["0", "1"], "TASK_STATE_COMPLETED", 2)


def event(generation, end=""):
    headers = {"a2a-task-id": "t", "a2a-generation": str(generation), "a2a-end": end}
    return SimpleNamespace(headers=[(name, text.encode()) for name, text in headers.items()])


LOG = [event(1), event(2), event(3), event(4, end="1")]


@pytest.mark.parametrize(
    ("log", "seen", "heard", "found"),
    [
        (LOG, {}, "m", {}),
        (LOG, {"generations": [2, 4]}, "m", {"stream_gap": 1}),
        (LOG, {"generations": [2, 3]}, "m", {"stream_gap": 1}),
        (LOG, {"generations": [2, 3, 3, 4]}, "m", {"generation_twice": 1}),
        (LOG, {"words": ["0"]}, "m", {"stream_words": 1}),
        (LOG, {"state": "TASK_STATE_FAILED"}, "m", {"stream_words": 1}),
        (LOG, {}, "", {"message_lost": 1}),
        (LOG, {}, "m n", {"message_lost": 1}),
        (LOG, {}, "m m", {"message_twice": 1}),
        ([LOG[0], *LOG[2:]], {}, "m", {"stream_gap": 1}),
        (LOG[1:], {}, "m", {"stream_gap": 1}),
        ([*LOG[:2], *LOG[1:]], {}, "m", {"generation_twice": 1}),
        ([*LOG[:3], event(4)], {}, "m", {"task_unended": 1}),
        ([*LOG[:2], event(3, end="1"), LOG[3]], {}, "m", {"task_ended_twice": 1}),
    ],
)
def test_a_stream_or_task_that_went_wrong_is_found(tmp_path, log, seen, heard, found):
    """Gaps, doubles, other words, messages that were not heard once, tasks that did not end once."""
    journal, hearing = tmp_path / "streams.jsonl", tmp_path / "heard"
    journal.write_bytes(msgspec.json.encode(msgspec.structs.replace(SEEN, **seen)) + b"\n")
    hearing.write_text("\n".join(heard.split()))
    verdict = Verdict()
    streams(log, journal, hearing, ["0", "1"], verdict)
    assert found == verdict.checks
