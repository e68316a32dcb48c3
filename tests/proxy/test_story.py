"""What is remembered of an episode, and for how long; by a clock that the test moves."""

import pytest

from odradek.infra.bus import Record
from odradek.proxy.errors import EpisodeSealed
from odradek.proxy.policies import PolicyVersions
from odradek.proxy.stories import Stories
from odradek.proxy.story import Sealing, Stage
from odradek.schemas import codec
from odradek.schemas.events import Outcome, Policy


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
    return Stories(clock, idle_s=10, keep_s=100)


def test_a_story_only_moves_forward(stories):
    """Open, sealing, sealed: anything else is an error."""
    story = stories.of("e")
    with pytest.raises(EpisodeSealed):
        story.move(Stage.SEALED)
    story.move(Stage.SEALING)
    story.move(Stage.SEALED)
    for stage in Stage:
        with pytest.raises(EpisodeSealed):
            story.move(stage)


def test_a_sealed_episode_is_remembered_for_its_time(stories, clock):
    """It takes no call as long as a token may be good, then it is forgotten."""
    story = stories.of("e", until=500)
    stories.close(story, Sealing("w", 1, Outcome.COMPLETED))
    for now in (50, 499):
        clock.now = now
        stories.sweep()
        with pytest.raises(EpisodeSealed):
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
