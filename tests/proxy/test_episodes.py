"""What is remembered of an episode, and for how long; by a clock that the test moves."""

from types import SimpleNamespace

import pytest

from odradek.infra.bus import Record
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.episodes.episode import (
    MAX_DIGESTS,
    MAX_TOOLS,
    MAX_UNSEEN,
    EpisodePhase,
    PendingTurn,
)
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.errors import EpisodeClosed
from odradek.schemas import codec
from odradek.schemas.events import Outcome, Policy, Turn
from odradek.schemas.http.seal import SealReply


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A clock at 0."""
    return Clock()


@pytest.fixture
def stories(clock):
    """Episodes that idle after 10 s and are kept for 100 s."""
    return EpisodeRegistry(clock, idle_s=10, keep_s=100)


def test_a_story_only_moves_forward(stories):
    """Open, sealing, sealed: anything else is an error."""
    story = stories.of("e")
    with pytest.raises(EpisodeClosed):
        story.move(EpisodePhase.SEALED)
    story.move(EpisodePhase.SEALING)
    story.move(EpisodePhase.SEALED)
    for stage in EpisodePhase:
        with pytest.raises(EpisodeClosed):
            story.move(stage)


def test_a_sealed_episode_is_remembered_for_its_time(stories, clock):
    """It takes no call as long as a token may be good, then it is forgotten."""
    story = stories.of("e", until=500)
    stories.close(story, SealReply("w", 1, Outcome.COMPLETED))
    for now in (50, 499):
        clock.now = now
        stories.sweep()
        with pytest.raises(EpisodeClosed):
            stories.of("e")
    clock.now = 501
    stories.sweep()
    assert stories.sealed("e") is None


def test_an_idle_episode_keeps_its_numbering_until_its_tokens_have_ended(stories, clock):
    """Counting again from 0 would read as duplicates."""
    story = stories.of("e", until=50)
    story.next_seq = 3
    story.tools.add("x")
    clock.now = 11
    stories.sweep()
    assert (3, set()) == (stories.of("e").next_seq, story.tools)
    clock.now = 151
    stories.sweep()
    assert len(stories) == 0


def test_an_episode_is_forgotten_after_its_last_token_and_its_last_call(stories, clock):
    """Whichever was later; a token that ends sooner takes nothing back."""
    for name, until, used_at in (("token", 500, 0), ("call", 0, 500)):
        story = stories.of(name, until=until)
        stories.of(name, until=1)
        story.used_at = used_at
    clock.now = 599
    stories.sweep()
    assert ["token", "call"] == [story.episode_id for story in stories]
    clock.now = 601
    stories.sweep()
    assert 0 == len(stories)


def test_a_sealed_episode_is_remembered_though_no_token_of_it_was_seen(stories, clock):
    """Its host repeats the seal where the answer was lost, and is told the same."""
    sealing = SealReply("w", 1, Outcome.COMPLETED)
    stories.close(stories.of("e"), sealing)
    clock.now = 99
    stories.sweep()
    assert sealing == stories.sealed("e")


def test_an_episode_with_a_call_in_flight_is_not_idle(stories, clock):
    """However long the call takes: its numbering and its history stay."""
    story = stories.of("e")
    story.enter("a call", limit=1)
    story.tools.add("x")
    clock.now = 1000
    stories.sweep()
    assert (story, {"x"}) == (stories.get("e"), story.tools)
    story.leave("a call", clock.now)
    stories.sweep()
    assert (1000, {"x"}) == (story.used_at, story.tools)


def test_what_is_remembered_of_calls_does_not_grow_with_their_number(stories):
    """Digests, tools, and turns that nobody saw."""
    story = stories.of("e")
    for n in range(5000):
        story.begin(f"digest {n}")
        story.learn_tools(f"tools {n}")
        story.put_aside(SimpleNamespace(digest=f"digest {n}", turn_ids=("t",)))
    assert MAX_DIGESTS >= len(story.begun) > 0
    assert MAX_TOOLS >= len(story.tools) > 0
    assert [f"digest {n}" for n in range(5000 - MAX_UNSEEN, 5000)] == [
        one for one, _ in story.unseen
    ]


def test_a_turn_that_was_given_up_may_be_acknowledged_all_the_same(stories):
    """Under `best_effort` another call has forgotten it meanwhile."""
    stories.of("e").sure(PendingTurn(Turn(episode_id="e", turn_id="t", writer="w", seq=0), b"", []))


def test_versions_never_go_back_and_other_policies_do_not_count():
    """The topic may be read again from its start."""
    versions = PolicyVersions("mine")
    assert versions.current is None
    for name, version in (("mine", 2), ("other", 9), ("mine", 1)):
        value = codec.encode(Policy(name=name, version=version, uri="u"))
        versions.take(Record("rl.policies.v1", 0, 0, name, value))
    for value in (b"poison", None):
        versions.take(Record("rl.policies.v1", 0, 0, None, value))
    assert versions.current == 2
