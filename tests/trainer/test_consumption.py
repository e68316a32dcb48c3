"""Which rows are used when, and where that leaves the trainer."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas.events import Step
from odradek.trainer.feed.cursor import REWARDS, Cursor, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.settings import TrainerSettings
from tests.support.trainer.played_groups import group_with_rewards


def steps_of(groups, rules, lineage=None, position=None, until=None):
    """Run to the end; yield (rows of the step, what it passed, position after it)."""
    consumption = Cursor(rules, lineage or Lineage(), position or Position())
    found, waiting = [], []
    for group in groups:
        if position and group.offset < position.offset:
            continue
        waiting += consumption.feed(group)
        while len(waiting) >= rules.rows_per_step and (until is None or len(found) < until):
            rows, waiting = waiting[: rules.rows_per_step], waiting[rules.rows_per_step :]
            found.append((rows, consumption.finish_step(), consumption.position))
    return found, consumption


RULES = RowRules(rows_per_step=4, max_staleness=1000)
shapes = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6), max_size=25)


@settings(max_examples=60)
@given(shapes, st.integers(1, 6))
def test_a_run_resumed_after_any_step_uses_the_same_rows(rewards, cut):
    """The position after step n is all that step n + 1 needs."""
    groups = [group_with_rewards(offset, worth) for offset, worth in enumerate(rewards)]
    whole, _ = steps_of(groups, RULES)
    first, _ = steps_of(groups, RULES, until=cut)
    if not first:
        return
    position = first[-1][2]
    assert len(first) == position.step
    rest, _ = steps_of(groups, RULES, position=position)
    for (ours, _, _), (theirs, _, _) in zip(first + rest, whole, strict=True):
        assert [(r.offset, r.index, r.staleness) for r in theirs] == [
            (r.offset, r.index, r.staleness) for r in ours
        ]


def mixed(offset, worth, stale):
    """A group of which some episodes are too old."""
    old = group_with_rewards(offset, worth, version=1)
    new = group_with_rewards(offset, worth, version=100)
    pairs = zip(old.episodes, new.episodes, stale, strict=False)
    return replace(new, episodes=tuple(first if is_old else then for first, then, is_old in pairs))


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6),
            st.lists(st.booleans(), min_size=6, max_size=6),
        ),
        max_size=15,
    ),
    st.integers(1, 6),
)
def test_a_run_resumed_after_any_step_tells_each_refusal_once(told, cut):
    """A refused row behind the position is not told by the step before and once more after it."""
    rules = RowRules(rows_per_step=2, max_staleness=50)
    lineage = Lineage({1: 0, 100: 99})
    lineage.fixed = True
    start = Position(0, 0, 99)
    groups = [mixed(offset, worth, stale) for offset, (worth, stale) in enumerate(told)]
    whole, ended = steps_of(groups, rules, lineage, start)
    first, _ = steps_of(groups, rules, lineage, start, until=cut)
    if not first:
        return
    rest, resumed = steps_of(groups, rules, lineage, first[-1][2])
    every = [r for _, passed, _ in whole for r in passed.refused]
    both = [r for _, passed, _ in first + rest for r in passed.refused]
    assert every + list(ended.passed_idle().refused) == both + list(resumed.passed_idle().refused)


def test_a_refused_row_is_told_with_its_place():
    """Several rows of an episode may be refused for one reason; a whole batch has no place."""
    consumption = Cursor(RowRules(rows_per_step=1, max_row_tokens=1), Lineage())
    consumption.feed(group_with_rewards(0, [0.0, 1.0]))
    consumption.feed(group_with_rewards(1, [1.0, 1.0]))
    refused = consumption.passed_idle().refused
    assert [("too_long", 0), ("too_long", 1), ("zero_variance", None)] == [
        (one.reason, one.row) for one in refused
    ]


kinds = st.tuples(
    st.lists(st.sampled_from([0.0, 1.0]), max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from(["train", "eval"]),
    st.booleans(),
)


@settings(max_examples=150)
@given(st.lists(kinds, max_size=25))
def test_what_is_told_while_idle_is_left_out_of_a_step_and_nothing_else(told):
    """Wherever the trainer waits: same rows, positions, batches and rewards, each refusal once."""
    rules = RowRules(rows_per_step=4, max_staleness=50)

    def run(idle):
        lineage = Lineage({1: 0, 100: 99}, fixed=True)
        consumption = Cursor(rules, lineage, Position(0, 0, 99))
        steps, refused = [], []
        for offset, (worth, stale, purpose, waits) in enumerate(told):
            group = mixed(offset, worth, stale)
            consumption.feed(
                replace(group, batch=msgspec.structs.replace(group.batch, purpose=purpose))
            )
            if waits and idle:
                refused += consumption.passed_idle().refused
            while consumption.waiting >= 4:
                passed = consumption.finish_step()
                refused += passed.refused
                steps.append((replace(passed, refused=()), consumption.position))
        return steps, refused + list(consumption.passed_idle().refused), consumption.position

    assert run(idle=False) == run(idle=True)


def test_memory_does_not_grow_with_batches_that_nothing_is_learned_from():
    """Evaluations, equal and stale groups go by for days, while a step's last rows do not come."""
    consumption = Cursor(RowRules(rows_per_step=4, max_staleness=1), Lineage(), Position(0, 0, 9))
    consumption.feed(group_with_rewards(0, [1.0, 0.0], version=10))
    sizes, refused = [], 0
    for offset in range(1, 3001):
        kind = offset % 3
        consumption.feed(
            group_with_rewards(offset, [1.0, 0.0], purpose="eval") if kind == 0
            else group_with_rewards(offset, [1.0, 1.0]) if kind == 1
            else group_with_rewards(offset, [1.0, 0.0], version=1)
        )  # fmt: skip
        if offset % 10 == 0:
            refused += len(consumption.passed_idle().refused)
            sizes.append(len(consumption._waiting))
    assert 4 >= max(sizes)
    assert 4000 == refused
    consumption.feed(group_with_rewards(3001, [1.0, 0.0], version=10))
    passed = consumption.finish_step()
    assert (3002, 3002, Position(3002, 0, 10)) == (
        passed.position, passed.batches, consumption.position
    )  # fmt: skip
    assert 4 + 4000 == len(passed.rewards)
    assert {0: 2, 3001: 2} == {use.offset: use.rows for use in passed.used}


def test_the_rewards_of_groups_that_no_step_used_are_the_newest_ones():
    """A policy that has learned all it can makes equal groups for ever."""
    consumption = Cursor(RULES, Lineage())
    for offset in range(REWARDS + 10):
        consumption.feed(group_with_rewards(offset, [float(offset < 10)]))
        if offset % 1000 == 0:
            consumption.passed_idle()
    consumption.passed_idle()
    consumption.feed(group_with_rewards(REWARDS + 10, [1.0, 0.0, 1.0, 0.0]))
    rewards = consumption.finish_step().rewards
    assert (REWARDS + 4, 2.0) == (len(rewards), sum(rewards))


@settings(max_examples=60)
@given(shapes, st.sets(st.integers(0, 12)))
def test_the_rows_of_a_skipped_step_are_passed_as_any_others_and_refused(rewards, skipped):
    """Whichever steps are skipped: same rows in each, same positions, each row told once."""

    def run(skip):
        consumption = Cursor(RULES, Lineage())
        told = []
        for offset, worth in enumerate(rewards):
            consumption.feed(group_with_rewards(offset, worth))
            while consumption.waiting >= RULES.rows_per_step:
                passed = consumption.finish_step(skipped=len(told) in skip)
                told.append((passed, consumption.position))
        return told

    for number, ((plain, at), (passed, position)) in enumerate(
        zip(run(set()), run(skipped), strict=True)
    ):
        assert (at, plain.position, plain.row) == (position, passed.position, passed.row)
        rows = [(r.offset, r.row) for r in passed.refused if r.reason == "non_finite"]
        others = [r for r in passed.refused if r.reason != "non_finite"]
        assert list(plain.refused) == others
        if number in skipped:
            assert () == passed.used
            taken = {use.offset: use.rows for use in plain.used}
            assert taken == {at: sum(o == at for o, _ in rows) for at, _ in rows}
            assert len(set(rows)) == len(rows) == RULES.rows_per_step
        else:
            assert ([], plain) == (rows, passed)


@settings(max_examples=60)
@given(shapes)
def test_every_batch_is_passed_once_and_every_row_is_used_or_refused_once(rewards):
    """Conservation, as the ledger tells it."""
    groups = [group_with_rewards(offset, worth) for offset, worth in enumerate(rewards)]
    found, consumption = steps_of(groups, RULES)
    last = consumption.passed_idle()
    refused = [r for _, passed, _ in found for r in passed.refused] + list(last.refused)
    equal = [n for n, worth in enumerate(rewards) if len(set(worth)) == 1]
    assert equal == sorted(r.offset for r in refused if r.reason == "zero_variance")
    used = {}
    for rows, passed, _ in found:
        assert len(rows) == sum(use.rows for use in passed.used) == RULES.rows_per_step
        for use in passed.used:
            used[use.offset] = used.get(use.offset, 0) + use.rows
            assert use.digest
    for n, worth in enumerate(rewards):
        assert used.get(n, 0) <= (0 if n in equal else len(worth))
    assert sum(used.values()) + consumption.waiting == sum(
        len(worth) for n, worth in enumerate(rewards) if n not in equal
    )
    positions = [passed.position for _, passed, _ in found]
    assert positions == sorted(positions)
    assert last.position == len(rewards) >= (positions or [0])[-1]


def test_equal_groups_and_evaluations_are_passed_without_a_row():
    """Nothing can be learned from them, so they never make a step."""
    groups = [
        group_with_rewards(0, [1.0, 1.0]),
        group_with_rewards(1, [1.0, 0.0], purpose="eval"),
        group_with_rewards(2, []),
    ]
    consumption = Cursor(RULES, Lineage())
    assert [[], [], []] == [consumption.feed(group) for group in groups]
    passed = consumption.passed_idle()
    assert ["zero_variance", "eval", "empty:too_few"] == [r.reason for r in passed.refused]
    assert (3, 3) == (passed.position, consumption.position.offset)
    assert () == consumption.passed_idle().refused


def test_rows_that_wait_count_as_passed_while_idle_but_not_in_a_checkpoint():
    """Else the dispatcher would wait for the trainer, which waits for rows."""
    consumption = Cursor(RULES, Lineage())
    consumption.feed(group_with_rewards(0, [1.0, 0.0]))
    consumption.feed(group_with_rewards(1, [1.0, 1.0]))
    assert 2 == consumption.passed_idle().position
    assert Position(0, 0, 0) == consumption.position
    consumption.feed(group_with_rewards(2, [1.0, 0.0, 1.0]))
    passed = consumption.finish_step()
    assert {0: 2, 2: 2} == {use.offset: use.rows for use in passed.used}
    assert () == passed.refused  # told before
    assert Position(2, 2, 1) == consumption.position


def test_staleness_counts_steps_not_versions():
    """A restart skips version numbers; what was fresh stays fresh."""
    rules = RowRules(rows_per_step=2, max_staleness=1)
    lineage = Lineage({1: 0, 2: 1, 3: 2, 7: 2})  # killed at step 2, published again as 7
    consumption = Cursor(rules, lineage, Position(5, 0, 2))
    fresh = consumption.feed(group_with_rewards(5, [1.0, 0.0], version=7))
    before = consumption.feed(group_with_rewards(6, [1.0, 0.0], version=3))
    assert [0, 0] == [row.staleness for row in fresh]
    assert [1, 1] == [row.staleness for row in before]
    assert [] == consumption.feed(group_with_rewards(7, [1.0, 0.0], version=2))
    consumption.finish_step()
    assert ["stale", "stale"] == [r.reason for r in consumption.finish_step().refused]


def test_the_ledger_tells_a_replay_what_versions_were():
    """Versions of the run that is replayed, not of the one that replays."""
    entries = [
        Step(run="a", incarnation=1, step=0, position=0, version=1),
        Step(run="a", incarnation=1, step=1, position=1, version=2),
        Step(run="a", incarnation=2, step=1, position=1, version=5),
    ]
    lineage = Lineage.from_ledger(entries)
    lineage.fixed = True
    lineage.publish(1, 9)
    assert [0, 1, 1, 1] == [lineage.step_of(version) for version in (1, 2, 3, 5)]
    assert 2 == Lineage().step_of(3)


@pytest.mark.parametrize("at_step", [0, 1, 7])
@pytest.mark.parametrize("lineage", [Lineage(), Lineage({1: 0, 9: 7}), Lineage({4: 7}, fixed=True)])
def test_a_row_whose_version_nobody_knows_is_as_old_as_the_run(lineage, at_step):
    """Never fresh, not even in the first step: it may be of any weights that there were."""
    assert max(at_step, 1) == lineage.staleness(None, at_step)


@pytest.mark.parametrize(
    ("max_staleness", "step", "taken"), [(0, 0, 0), (1, 0, 2), (3, 3, 2), (3, 4, 0)]
)
def test_rows_of_unknown_versions_are_refused_once_the_run_is_older_than_allowed(
    max_staleness, step, taken
):
    """With the reason of all rows that are too old."""
    group = group_with_rewards(0, [1.0, 0.0])
    unknown = [
        (pointer, msgspec.structs.replace(episode, sequences=tuple(
            msgspec.structs.replace(one, versions=()) for one in episode.sequences)))
        for pointer, episode in group.episodes
    ]  # fmt: skip
    rules = RowRules(rows_per_step=2, max_staleness=max_staleness)
    consumption = Cursor(rules, Lineage({1: 0}), Position(0, 0, step))
    assert taken == len(consumption.feed(replace(group, episodes=tuple(unknown))))
    assert ["stale"] * (2 - taken) == [one.reason for one in consumption.passed_idle().refused]


def test_rules_read_from_the_ledger_are_those_of_the_settings():
    """Whether a setting was given or has its default; each that was given counts."""
    given = {
        "rows_per_step": 7, "max_staleness": 9, "max_row_tokens": 5, "baseline": "median",
        "scale_advantages": "none", "pass_k": 3, "weigh": "row", "overlong_tokens": 9,
        "overlong_buffer": 2, "length_penalty": 0.5, "success_reward": 0.5, "temperature": 0.7,
        "truncated": "mask", "tis": 2.0, "fresh_share": 0.5, "max_staleness_replayed": 7,
    }  # fmt: skip
    settings = TrainerSettings.model_construct(**given)
    assert settings.rules == RowRules.of(settings.model_dump(mode="json", exclude_defaults=True))
    plain = TrainerSettings.model_construct().rules
    assert replace(plain, fresh_share=RowRules().fresh_share) == RowRules.of({})
    assert len(given) == len({repr(RowRules.of({name: given[name]})) for name in given})
    assert RowRules.of({}) not in [RowRules.of({name: given[name]}) for name in given]
