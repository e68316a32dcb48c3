"""The assembler's fold: what ends an episode, what counts, and what becomes a dead letter."""

import itertools

import pytest

from odradek.schemas import codec
from odradek.schemas.events import Conversation, Episode, Outcome, Tick, Timing, TurnsEvent
from odradek.schemas.topics import EPISODES, REVISIONS
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.episode import read
from tests.support.schemas.event_builders import (
    Log,
    aborted,
    opened,
    reward,
    sealed,
    tell,
    turn,
    written,
)


def episodes(told, **more):
    out, letters = tell(ASSEMBLE, told, **more)
    return [event for event in out if isinstance(event, Episode)], letters


def test_the_plain_story_gives_one_conversation_and_one_rewarded_episode():
    """EpisodeOpened, a turn, its reward and EpisodeSealed are one episode with one sequence."""
    out, letters = tell(ASSEMBLE, [opened(), turn(), reward(value=0.5), sealed()])
    conversation, episode = out
    assert isinstance(conversation, Conversation)
    assert [] == letters
    assert (Outcome.COMPLETED, 0.5, 1) == (episode.outcome, episode.reward, episode.n_turns)
    assert ["yo"] == [said.text for said in read(conversation).replies]
    assert [("e1/w1/0",)] == [run.turn_ids for run in episode.sequences]


def test_an_episode_waits_for_every_wanted_reward():
    """The weighted sum is written once the last component is there, after the seal too."""
    told = [opened(rewards={"game": 1.0, "style": 0.1}), turn(), sealed(), reward(value=1.0)]
    assert ([], []) == episodes(told)
    (episode,), _ = episodes([*told, reward(value=2.0, component="style")])
    assert pytest.approx(1.2) == episode.reward
    assert {"game": 1.0, "style": 2.0} == episode.components


def test_without_wanted_rewards_one_named_reward_counts():
    """A task that names no rewards takes any reward called "reward" with weight 1."""
    told = [opened(rewards={}), turn(), sealed(), reward(component="reward", value=3.0)]
    (episode,), _ = episodes(told)
    assert 3.0 == episode.reward


def test_the_first_reward_of_a_component_wins():
    """A second verdict is a dead letter, an equal one is a repeat and dropped."""
    told = [opened(), turn(), reward(value=1.0), reward(value=1.0), reward(value=9.0), sealed()]
    (episode,), letters = episodes(told)
    assert 1.0 == episode.reward
    assert ["late_reward"] == letters


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_an_agents_failure_counts_at_once_with_the_failure_reward(outcome):
    """No reward is waited for, and the captured sequences are kept."""
    told = [opened(failure_reward=-1.0), turn(), sealed(outcome=outcome)]
    (episode,), _ = episodes(told)
    assert (outcome, -1.0, 1) == (episode.outcome, episode.reward, len(episode.sequences))


@pytest.mark.parametrize("retry", [True, False])
def test_an_aborted_attempt_says_whether_another_follows(retry):
    """EpisodeAborted ends an episode without a reward."""
    (episode,), _ = episodes([opened(), turn(), aborted(retry=retry)])
    assert (Outcome.HOST_LOST, None, retry) == (episode.outcome, episode.reward, episode.retry)


def test_a_gap_makes_an_episode_incomplete():
    """EpisodeSealed says three turns, two are there."""
    (episode,), _ = episodes([opened(), turn(seq=0), turn(seq=2), reward(), sealed(n=3)])
    assert (Outcome.INCOMPLETE, None) == (episode.outcome, episode.reward)
    assert "2 of 3" in episode.error


def test_a_gap_inside_a_dead_writers_run_matters_and_its_lost_tail_does_not():
    """Another writer's run must have no gap; how long it would have been nobody knows."""
    moved = [turn(seq=0, writer="w0"), turn(seq=0, writer="w1")]
    (episode,), _ = episodes([opened(), *moved, reward(), sealed(n=1)])
    assert Outcome.COMPLETED == episode.outcome
    (episode,), _ = episodes([opened(), turn(seq=1, writer="w0"), *moved[1:], reward(), sealed()])
    assert Outcome.INCOMPLETE == episode.outcome


def test_what_follows_the_end_is_dead_lettered():
    """The first of EpisodeSealed and EpisodeAborted ends an episode."""
    late = [turn(seq=1), aborted(), sealed()]
    out, letters = tell(ASSEMBLE, [opened(), turn(), sealed(), *late])
    assert ["after_end"] * 3 == letters
    assert [Conversation] == [type(event) for event in out]


def test_only_opened_creates_state():
    """Whatever comes for an unknown or closed episode is a dead letter."""
    told = [turn(), sealed(), aborted(), opened(), aborted(), turn()]
    _, letters = episodes(told)
    assert ["closed_or_unknown"] * 4 == letters


@pytest.mark.parametrize("before", [[], [opened(), aborted()], [opened(), reward(), sealed()]])
def test_a_reward_without_an_open_episode_is_a_revision(before):
    """Nobody remembers closed episodes here: whoever reads the revisions knows whose it is."""
    late = reward(value=9.0)
    out, letters = tell(ASSEMBLE, [*before, late])
    assert ([], late) == (letters, out[-1])
    log = Log()
    log.add(late)
    *_, record = written(ASSEMBLE, log.records)
    assert (REVISIONS.name, "e1") == (record.topic, record.key)


def test_an_episode_says_how_its_reward_was_made():
    """The weights of its task stand beside the components."""
    weights = {"game": 1.0, "style": 0.1}
    rewards = [reward(value=1.0), reward(value=2.0, component="style")]
    (episode,), _ = episodes([opened(rewards=weights), turn(), *rewards, sealed()])
    assert weights == episode.weights


def test_a_key_that_is_not_the_episodes_is_a_dead_letter():
    """A record on a foreign key could split a story over partitions."""
    log = Log()
    log.add(opened(), key="another")
    (letter,) = written(ASSEMBLE, log.records)
    assert b"wrong_key" in dict(letter.headers).values()


def test_duplicates_change_nothing():
    """At-least-once delivery before the seal gives the same bytes."""
    once = [opened(), turn(seq=0), turn(seq=1, prompt=(1, 2, 3)), reward(), sealed(n=2)]
    twice = [opened(), opened(), *[turn(seq=0)] * 3, turn(seq=1, prompt=(1, 2, 3)), turn(seq=0)]
    assert episodes(once) == episodes([*twice, reward(), reward(), sealed(n=2)])


def test_a_turn_that_comes_back_under_another_number_is_no_new_turn():
    """Repeats are known by turn id as well as by writer and seq."""
    told = [opened(), turn(seq=0), turn(seq=1, turn_id="e1/w1/0"), reward(), sealed(n=1)]
    (episode,), _ = episodes(told)
    assert (Outcome.COMPLETED, 1) == (episode.outcome, episode.n_turns)


def test_another_turn_under_a_taken_number_is_a_dead_letter():
    """The first one in the log stays."""
    told = [opened(), turn(seq=0), turn(seq=0, turn_id="other"), reward(), sealed(n=1)]
    (episode,), letters = episodes(told)
    assert [("e1/w1/0",)] == [run.turn_ids for run in episode.sequences]
    assert ["conflicting_seq"] == letters


def test_every_order_of_five_turns_gives_one_result():
    """R8: all orders of one writer's turns before the seal, a duplicate among them."""
    turns = [
        turn(seq=seq, base=f"e1/w1/{seq - 1}" if seq else "", prefix=3 * seq, prompt=(7, 8))
        for seq in range(5)
    ]
    results = {
        codec.encode(episodes([opened(), *order, order[0], reward(), sealed(n=5)])[0][0])
        for order in itertools.permutations(turns)
    }
    assert 1 == len(results)


def test_a_reward_that_never_comes_leaves_the_episode_unrewarded():
    """The reward deadline counts from the seal, and only a Tick tells time."""
    told = [(opened(), 0), (turn(), 1), (sealed(), 2), (Tick(), 7)]
    assert ([], []) == episodes(told)
    (episode,), _ = episodes([*told, (Tick(), 8)])
    assert (Outcome.UNREWARDED, None, 8.0) == (episode.outcome, episode.reward, episode.closed_at)


def test_a_run_that_nobody_ends_is_a_lost_host():
    """Run and seal deadlines count from EpisodeOpened; a further attempt may follow unless final."""
    told = [(opened(last_attempt=False), 0), (turn(), 1), (Tick(), 11)]
    assert ([], []) == episodes(told)
    (episode,), _ = episodes([*told, (Tick(), 12)])
    assert (Outcome.HOST_LOST, True, 1) == (episode.outcome, episode.retry, episode.n_turns)


def test_unattributed_calls_are_an_episode_that_says_so():
    """Recorded, flagged, incomplete, and no attempt follows."""
    told = [(opened(unattributed=True), 0), (turn(), 1), (Tick(), 12)]
    (episode,), _ = episodes(told)
    assert (True, Outcome.INCOMPLETE) == (episode.unattributed, episode.outcome)


def test_superseded_and_cut_turns_are_kept_but_not_trained():
    """Their tokens are in no sequence, and judges do not see their replies."""
    told = [
        opened(),
        turn(seq=0, disconnected=True),
        turn(seq=1),
        turn(seq=2, supersedes="e1/w1/1"),
        reward(),
        sealed(n=3),
    ]
    out, _ = tell(ASSEMBLE, told)
    conversation, episode = out
    assert {"e1/w1/0": "disconnected", "e1/w1/1": "superseded"} == episode.untrained_turns
    assert [("e1/w1/2",)] == [run.turn_ids for run in episode.sequences]
    assert 1 == len(read(conversation).replies)


def test_a_retry_at_another_writer_supersedes_what_the_dead_one_acked():
    """Same digest, a retry count, another writer: the older turn was never released."""
    asked = turn().request
    same = type(asked)(messages=asked.messages, digest="d")
    told = [
        opened(),
        turn(writer="w0", request=same),
        turn(writer="w1", request=same, retry_count=1),
        reward(),
        sealed(),
    ]
    (episode,), _ = episodes(told)
    assert {"e1/w0/0": "superseded"} == episode.untrained_turns


def test_each_retry_stands_for_one_turn_of_the_dead_writer():
    """Two equal calls at once whose proxy died before their end: two turns count, not three."""
    asked = turn().request
    twin = type(asked)(messages=asked.messages, digest="same")
    old = [turn(seq=seq, writer="w0", request=twin, equal_calls=2) for seq in (0, 1)]
    new = [turn(seq=seq, writer="w1", request=twin, retry_count=1) for seq in (0, 1)]
    (episode,), _ = episodes([opened(), *old, *new, reward(), sealed(n=2)])
    assert {"e1/w0/0": "superseded", "e1/w0/1": "superseded"} == episode.untrained_turns


@pytest.mark.parametrize(
    ("acked", "again", "unseen"),
    [(1, 1, []), (1, 2, [0]), (2, 0, []), (2, 1, [1]), (2, 2, [0, 1]), (0, 2, [])],
)
def test_of_two_equal_calls_those_that_were_released_are_trained(acked, again, unseen):
    """The dead writer told that it had taken up two: a retry too few means one was released."""
    twin = type(turn().request)(messages=turn().request.messages, digest="same")
    old = [turn(seq=seq, writer="w0", request=twin, equal_calls=2) for seq in range(acked)]
    new = [
        turn(seq=seq, writer="w1", request=twin, equal_calls=2, retry_count=1)
        for seq in range(again)
    ]
    (episode,), _ = episodes([opened(), *old, *new, reward(), sealed(n=len(new) or len(old))])
    assert {f"e1/w0/{seq}": "superseded" for seq in unseen} == episode.untrained_turns
    assert 2 == sum(len(run.spans) for run in episode.sequences)


def test_the_low_water_mark_is_the_oldest_open_episode():
    """Nothing but open episodes holds it back."""
    log = Log()
    fold = ASSEMBLE.fold()
    told = [opened("a"), opened("b"), turn("b"), aborted("a"), turn("c"), aborted("b")]
    marks = []
    for event in told:
        record = log.add(event)
        fold.feed(record, codec.decode(record.value, TurnsEvent))
        marks.append(fold.low_water(record.offset + 1))
    assert [0, 0, 0, 1, 1, 6] == marks


def test_a_host_takes_over_an_episode_that_a_stray_call_began():
    """Its EpisodeOpened counts, and its deadlines run from there; a second one does not."""
    stray = opened(unattributed=True, rewards={"other": 1.0})
    story = [(stray, 0), (opened(), 5), (opened(rewards={"third": 1.0}), 6)]
    (_, episode), letters = tell(ASSEMBLE, [*story, turn(), reward(), (sealed(), 7)])
    assert (False, 1.0, 5.0) == (episode.unattributed, episode.reward, episode.opened_at)
    assert [] == letters


def test_turns_of_several_writers_stand_in_the_order_of_their_ends():
    """By when a call ended, not by when it began or how long it took."""
    late = turn(writer="w1", sampled=(3,), timing=Timing(started_at=10.0, total_ms=1000.0))
    early = turn(writer="w2", sampled=(4,), timing=Timing(started_at=9.0, total_ms=1500.0))
    (conversation, _), _ = tell(ASSEMBLE, [opened(), late, early, reward(), sealed(n=1)])
    assert ["e1/w2/0", "e1/w1/0"] == [said.turn_id for said in conversation.turns]


@pytest.mark.parametrize(("more", "outcome"), [(0, Outcome.COMPLETED), (3, Outcome.INCOMPLETE)])
def test_tokens_fit_into_a_record_of_the_topic_or_none_is_kept(more, outcome):
    """As base64, with 256 bytes a turn and 4,096 for the rest."""
    tokens = (EPISODES.max_bytes - 4096 - 256) * 3 // 4 // 8 + more
    big = turn(prompt=(), sampled=range(tokens))
    (_, episode), _ = tell(ASSEMBLE, [opened(), big, reward(), sealed()])
    assert outcome == episode.outcome
    assert (outcome is Outcome.COMPLETED) == bool(episode.sequences)
