"""The mixer: what it writes for what it has read, and that one that begins anew goes on alike."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas import codec
from odradek.schemas.events import Batch, BatchUse, Mixed, Pointer, Step
from odradek.schemas.topics import MIXED
from odradek.streams.sampler.mixer import (
    BatchHead,
    MixedHead,
    Mixer,
    drawn_from,
    mixed_again,
    teaches,
)
from odradek.streams.sampler.rules import DrawRules, MixRules

RULES = MixRules(fresh=2, replayed=2, seed=3, draws=DrawRules(capacity=6, half_life=4.0))


def batch(number, rewards=(0.0, 1.0), **more):
    """A closed group of two samples."""
    pointers = tuple(
        Pointer(
            episode_id=f"e{number}.{sample}",
            sample=sample,
            topic="rl.episodes.v1",
            partition=0,
            offset=10 * number + sample,
            digest=f"{number}.{sample}",
            reward=reward,
        )
        for sample, reward in enumerate(rewards)
    )
    fields = {"task_id": f"t{number}", "group_size": len(rewards), "episodes": pointers}
    same = len({*rewards}) == 1
    return Batch(**(fields | {"zero_variance": same} | more))


def step(advantages, **more):
    """A step that used a row of each batch, by its offset on `rl.batches.v1`."""
    used = tuple(
        BatchUse(offset=0, rows=1, source=offset, advantage=value)
        for offset, value in advantages.items()
    )
    fields = {"run": "main", "incarnation": 1, "step": 1, "position": 0, "topic": MIXED.name}
    return Step(**(fields | {"used": used} | more))


def mixed(mixer, n):
    """What a mixer writes for n batches."""
    return [each for number in range(n) for each in mixer.batch(number, batch(number))]


def test_fresh_batches_go_through_as_they_are_and_old_ones_follow():
    """Two fresh ones, then as many old ones as there are, none of them of the window before."""
    written = mixed(Mixer(RULES), 6)
    assert [0, 0, 0, 0, 1, 1, 0, 0, 1, 1] == [bool(each.origin) for each in written]
    fresh = [w for w in written if not w.origin]
    assert list(range(6)) == [w.mixed.batch for w in fresh]
    assert {0} == {pointer.uses for w in fresh for pointer in w.episodes}
    assert {1.0} == {pointer.weight for w in fresh for pointer in w.episodes}
    for each in written:
        if each.origin:
            assert each.mixed.batch < each.mixed.batches - 2
            assert f"rl.batches.v1/0/{each.mixed.batch}" == each.origin
            assert batch(each.mixed.batch).digest() == each.digest()


def test_an_old_batch_says_how_often_it_was_used_and_what_it_weighs():
    """The first draw is use 1, and the largest weight of a draw is 1."""
    written = mixed(Mixer(RULES), 20)
    uses = {}
    for each in (each for each in written if each.origin):
        uses[each.mixed.batch] = uses.get(each.mixed.batch, 0) + 1
        assert {uses[each.mixed.batch]} == {pointer.uses for pointer in each.episodes}
        assert all(0 < pointer.weight <= 1 for pointer in each.episodes)
    assert 4 >= max(uses.values()) > 1


@pytest.mark.parametrize(
    "what",
    [
        batch(0, purpose="eval"),
        batch(0, rewards=(1.0, 1.0)),
        batch(0, episodes=(), empty_reason="too_few"),
        batch(0, origin="rl.batches.v1/0/7"),
    ],
)
def test_what_teaches_nothing_goes_through_and_is_never_drawn(what):
    """Evaluations, equal and empty groups, and batches that are repeats already."""
    assert not teaches(what)
    mixer = Mixer(RULES)
    written = [each for number in range(9) for each in mixer.batch(number, what)]
    assert 9 == len(written)
    assert 0 == mixer.memory.count


def test_priorities_are_those_of_the_leading_trainer_on_the_mixed_topic():
    """Steps of other topics, and of runs beside the leading one, say nothing."""
    mixer = Mixer(RULES)
    mixed(mixer, 4)
    before = mixer.memory.state()
    mixer.step(0, step({0: 5.0}, topic="rl.batches.v1"))
    mixer.step(1, step({0: 5.0}, sampled_by="main"))
    mixer.step(2, None)
    assert before == mixer.memory.state()
    mixer.step(3, step({0: 5.0}))
    assert before != mixer.memory.state()
    assert 4 == mixer.steps


moves = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.sampled_from([(0.0, 1.0), (1.0, 1.0), (0.0, 3.0)])),
        st.tuples(
            st.just("step"), st.dictionaries(st.integers(0, 30), st.floats(0, 9), max_size=3)
        ),
    ),
    max_size=60,
)
rules = st.builds(
    MixRules,
    fresh=st.integers(1, 3),
    replayed=st.integers(0, 3),
    seed=st.integers(0, 3),
    draws=st.builds(
        DrawRules,
        order=st.sampled_from(["uniform", "recency", "reward", "proportional"]),
        capacity=st.integers(1, 8),
        half_life=st.sampled_from([0.0, 2.0]),
        max_uses=st.integers(0, 2),
    ),
)


def told(rules, moves):
    """A mixer after moves; both topics by offset, and what it wrote."""
    mixer, batches, steps, written = Mixer(rules), {}, {}, []
    at, then = count(0, 2), count(1, 3)  # transactions leave gaps
    for kind, what in moves:
        if kind == "batch":
            offset = next(at)
            batches[offset] = batch(offset, what)
            written += mixer.batch(offset, batches[offset])
        else:
            offset = next(then)
            steps[offset] = step(what)  # of batches that were not read yet, too
            mixer.step(offset, steps[offset])
    return mixer, batches, steps, written


@settings(deadline=None)
@given(rules, moves, st.integers(0, 60), st.booleans())
def test_a_mixer_that_reads_everything_back_goes_on_as_the_one_that_died(rules, moves, cut, heads):
    """Batches, then steps, then its own draws: the same memory to the byte, and the same to come.

    Whether it reads batches whole or their heads alone.
    """
    old, batches, steps, written = told(rules, moves[:cut])
    new = Mixer(rules)
    for offset, each in batches.items():
        value = codec.encode(each)
        new.remember(offset, codec.decode(value, BatchHead) if heads else each, value)
    for offset, each in steps.items():
        new.recall(offset, each)
    for each in written:
        new.drew(codec.decode(codec.encode(each), MixedHead) if heads else each)
    new.settle(old.batches, old.steps)
    assert old.memory.state() == new.memory.state()
    assert (old.batches, old.steps) == (new.batches, new.steps)
    for number in range(100, 112):
        assert old.batch(number, batch(number)) == new.batch(number, batch(number))


@settings(deadline=None)
@given(rules, moves)
def test_everything_that_is_written_follows_from_the_offsets_in_it(rules, moves):
    """Whoever reads both topics as far as each batch says, with the same seed, writes the same."""
    _, batches, steps, written = told(rules, moves)
    marks = [each.mixed for each in written]
    assert written == mixed_again(rules, marks, batches, steps)
    assert all(isinstance(mark, Mixed) for mark in marks)


@settings(deadline=None)
@given(rules, moves)
def test_no_window_has_a_batch_twice_and_none_is_drawn_too_often(rules, moves):
    """Without replacement within what follows on fresh batches, and within the most uses."""
    _, batches, _, written = told(rules, moves)
    teach = [offset for offset, each in batches.items() if teaches(each)]
    draws, uses = {}, {}
    for each in written:
        if (source := drawn_from(each)) is not None:
            draws.setdefault(each.mixed.batches, []).append(source)
            uses[source] = uses.get(source, 0) + 1
    for before, sources in draws.items():
        window = [offset for offset in teach if offset < before][-rules.fresh :]
        assert len(sources) == len({*sources, *window}) - len(window)
    most = rules.draws.max_uses
    assert not most or all(n <= most for n in uses.values())
