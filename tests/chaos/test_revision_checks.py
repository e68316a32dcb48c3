"""Verdicts of a re-scoring are held against the conversations, each fault by its own check."""

import pytest

from odradek.schemas.events import Conversation, Outcome, Reward
from tests.chaos.verification.log import Log
from tests.chaos.verification.oracle import LATE, rescored
from tests.chaos.verification.revision_checks import revisions
from tests.chaos.verification.verdict import Verdict

HEARD = [
    Conversation(episode_id="e1", task_id="t", agent="a", sample=0),
    Conversation(episode_id="e2", task_id="t", agent="a", sample=1),
    Conversation(episode_id="e3", task_id="t", agent="a", sample=2, outcome=Outcome.FAILED),
]


def late(episode, value=None, component=LATE):
    value = rescored(episode) if value is None else value
    return Reward(episode_id=episode, component=component, value=value, source="/rescore/chaos")


@pytest.mark.parametrize(
    ("rewards", "found"),
    [
        ([late("e1"), late("e2"), late("e1")], {}),
        ([late("e1")], {"rescore_lost": 1}),
        ([late("e1"), late("e2"), late("e2", -1.0)], {"rescore_twice": 1}),
        ([late("e1"), late("e2", -1.0)], {"rescore": 1}),
        ([late("e1"), late("e2"), late("e3")], {"rescore": 1}),
        ([late("e1"), late("e2"), late("e2", component="other")], {"rescore": 1}),
    ],
    ids=["again", "lost", "two values", "another value", "not completed", "another component"],
)
def test_a_verdict_that_went_wrong_is_found(rewards, found):
    """One that came again is none; rewards of others are nobody's business here."""
    stranger = Reward(episode_id="e9", component="x", value=1.0, source="/judge")
    log = Log(
        conversations=[(None, heard) for heard in HEARD],
        revisions=[(None, reward) for reward in [*rewards, stranger]],
    )
    verdict = Verdict()
    revisions(log, verdict)
    assert found == verdict.checks
