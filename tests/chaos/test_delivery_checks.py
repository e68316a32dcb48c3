"""What a webhook took is held against the log, and each kind of fault is found by its own check."""

import hashlib
from types import SimpleNamespace

import msgspec
import pytest

from tests.chaos.verification.delivery_checks import deliveries
from tests.chaos.verification.verdict import Verdict

EVENTS = [
    SimpleNamespace(
        value=b"%d" % number,
        headers=[("a2a-task-id", b"t"), ("a2a-generation", b"%d" % number)],
    )
    for number in (1, 2, 3)
]


def post(number, body=None):
    return (f"t.{number}", hashlib.sha256(body or b"%d" % number).hexdigest())


@pytest.mark.parametrize(
    ("posts", "found"),
    [
        ([post(1), post(2), post(2), post(1), post(3)], {}),
        ([post(1), post(3)], {"delivery_lost": 1}),
        ([], {"delivery_lost": 3}),
        ([post(2), post(1), post(3)], {"delivery_order": 1}),
        ([post(1), post(2, b"x"), post(3)], {"delivery_bytes": 1}),
    ],
    ids=["again", "lost", "none", "order", "bytes"],
)
def test_a_delivery_that_went_wrong_is_found(tmp_path, posts, found):
    """One that came again is none."""
    journal = tmp_path / "taken.jsonl"
    journal.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in posts))
    verdict = Verdict()
    deliveries(EVENTS, journal, verdict)
    assert found == verdict.checks
