"""The verifier finds each thing that it is there to find: a clean log, doctored in one place."""

from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from odradek.schemas import events
from tests.chaos.verification import oracle
from tests.chaos.verification.ledger_checks import line
from tests.chaos.verification.recorded_log import ROWS, SEED, Recording
from tests.chaos.verification.verifier import judge

SAMPLE = (f"s{SEED}-00001", 2)


@pytest.fixture
async def clean(tmp_path):
    """A log in which all is well, one lost attempt among it, and what it is held against."""
    return await Recording(tmp_path, {SAMPLE: 1}).make()


def without(records, kind, at=0):
    """The records but one of a kind."""
    doomed = [entry for entry in records if isinstance(entry[1], kind)][at]
    return [entry for entry in records if entry is not doomed]


def test_a_log_in_which_all_is_well_is_clean(clean):
    """Otherwise nothing below says anything."""
    verdict = judge(*clean)
    assert {} == dict(verdict.found)
    assert {"closed_or_unknown": 1} == dict(verdict.letters)
    assert 40 < verdict.counts["seen"]
    assert verdict.counts["rows_waiting"] < ROWS < verdict.counts["rows_used"]


def test_an_empty_journal_is_found(clean):
    """Agents that saw nothing would prove nothing about what they saw."""
    log, given = clean
    given.seen.write_bytes(b"")
    assert ["journal"] == list(judge(log, given).checks)


def test_a_reply_that_was_seen_and_is_not_in_the_log_is_found(clean):
    """The first guarantee."""
    log, given = clean
    log.turns = without(log.turns, events.Turn)
    assert "seen_unlogged" in judge(log, given).checks


def test_equal_rewards_are_not_the_ledgers_say(clean):
    """A batch that calls itself equal would let the trainer pass over it."""
    log, given = clean
    record, batch = log.batches[0]
    log.batches[0] = (record, replace(batch, zero_variance=True))
    log.steps = [
        (
            None,
            replace(step, used=tuple(one for one in step.used if one.offset != record.offset)),
        )
        for _, step in log.steps
    ]
    assert {"variance", "rows_unused", "step_size"} == judge(log, given).checks.keys()


def test_a_step_that_was_never_made_is_found(clean):
    """No more rows wait than one step takes."""
    log, given = clean
    log.steps = log.steps[:-2]
    assert {"rows_waiting"} == judge(log, given).checks.keys()


def test_rows_that_two_steps_use_are_found(clean):
    """Each batch moves the weights once."""
    log, given = clean
    _, last = log.steps[-1]
    log.steps.append((None, replace(last, step=last.step + 1, weights="other")))
    assert {"rows_twice", "version_twice"} == judge(log, given).checks.keys()


def test_more_lost_attempts_than_hosts_that_ended_explain_are_found(clean):
    """A pipeline that gives attempts up by itself would look busy and clean."""
    log, given = clean
    assert {"loss_unexplained"} == judge(log, _with(given, lost_attempts=0)).checks.keys()
    at, (record, episode) = next(
        (at, entry)
        for at, entry in enumerate(log.episodes)
        if isinstance(entry[1], events.Episode) and entry[1].outcome == "host_lost"
    )
    log.episodes[at] = (record, replace(episode, outcome=events.Outcome.INCOMPLETE))
    assert {} == judge(log, _with(given, cut_attempts=1)).checks
    assert {"loss_unexplained"} == judge(log, given).checks.keys()
    log.episodes[at] = (record, replace(episode, outcome=events.Outcome.UPSTREAM_FAILED))
    assert {} == judge(log, _with(given, agent_losses=1)).checks
    assert {"loss_unexplained"} == judge(log, given).checks.keys()


async def test_a_sample_is_left_out_only_after_all_its_attempts(tmp_path):
    """`host_lost` as a reason takes as many lost attempts as there may be."""
    log, given = await Recording(tmp_path, {SAMPLE: 3}).make()
    verdict = judge(log, given)
    assert {} == dict(verdict.found)
    assert {"host_lost": 1} == dict(verdict.exclusions)
    assert {"exclusion_unexplained"} == judge(log, _with(given, max_attempts=5)).checks.keys()


@pytest.mark.parametrize("reason", ["unrewarded", "missing", "too_few", "incomplete"])
async def test_other_reasons_leave_no_sample_out(tmp_path, reason):
    """Nothing in this schedule explains them."""
    log, given = await Recording(tmp_path, {SAMPLE: 3}).make()
    at = next(at for at, (_, batch) in enumerate(log.batches) if batch.exclusions)
    record, batch = log.batches[at]
    excluded = tuple(replace(one, reason=reason) for one in batch.exclusions)
    log.batches[at] = (record, replace(batch, exclusions=excluded))
    assert {"exclusion_unexplained"} == judge(log, given).checks.keys()


def test_a_dead_letter_of_an_attempt_that_was_not_lost_is_found(clean):
    """Only what a lost attempt still had to say may be one."""
    log, given = clean
    (letter,) = log.letters
    turn = next(
        (record, event)
        for record, event in log.turns
        if isinstance(event, events.Turn) and event.episode_id != letter.key
    )
    log.letters.append(
        replace(letter, key=turn[1].episode_id, value=turn[0].value, offset=turn[0].offset)
    )
    assert {"letter_unexplained"} == judge(log, given).checks.keys()


def test_a_turn_of_a_hostile_writer_must_be_a_dead_letter(clean):
    """And nothing else is expected of it."""
    log, given = clean
    (letter,) = log.letters
    name = next(
        event.turn_id
        for _, event in log.turns
        if isinstance(event, events.Turn) and event.episode_id == letter.key
    )
    assert {} == judge(log, _with(given, strays=frozenset({name}))).checks
    assert {"turn_homeless"} == judge(log, _with(given, strays=frozenset({"x"}))).checks.keys()


def test_a_partition_that_was_never_committed_is_found(clean):
    """No offset is as bad as one that stands still."""
    log, given = clean
    del log.marks["group"][0]
    log.marks["assemble"][0] -= 1
    assert {"uncommitted", "low_water"} == judge(log, given).checks.keys()


def test_an_episode_that_stands_twice_is_found(clean):
    """Whether or not the grouper dropped the second."""
    log, given = clean
    log.episodes.append(log.episodes[-1])
    assert "episode_twice" in judge(log, given).checks


def test_an_episode_that_is_missing_is_found(clean):
    """With its turns, and the pointer to it."""
    log, given = clean
    log.episodes = without(log.episodes, events.Episode)
    assert {"episode_lost", "turn_homeless", "committed_beyond"} <= judge(log, given).checks.keys()


def test_a_batch_that_is_missing_is_found(clean):
    """Every GroupOpened comes to one."""
    log, given = clean
    log.batches.pop()
    assert {"batch_lost", "committed_beyond"} <= judge(log, given).checks.keys()


def test_a_run_that_stands_still_is_no_proof_of_a_loss(clean):
    """What is open may yet come: only a mark above it says that it cannot."""
    log, given = clean
    _, last = log.batches.pop()
    begins = next(
        record for record, event in log.episodes if getattr(event, "task_id", "") == last.task_id
    )
    log.marks["group"][begins.partition] = begins.offset
    checks = judge(log, _with(given, ended=False)).checks
    assert {"batch_lost", "low_water"} == checks.keys()


def test_tokens_of_another_call_are_found(clean):
    """Each sampled token is the engine's."""
    log, given = clean
    at, (record, episode) = next(
        (at, entry)
        for at, entry in enumerate(log.episodes)
        if isinstance(entry[1], events.Episode) and entry[1].sequences
    )
    sequence = episode.sequences[0]
    other = replace(sequence, ids=sequence.ids[:-4] + (oracle.END + 1).to_bytes(4, "little"))
    episode = replace(episode, sequences=(other, *episode.sequences[1:]))
    log.episodes[at] = (record, episode)
    assert "tokens" in judge(log, given).checks


def test_the_line_of_checkpoints_leaves_out_what_a_restart_cut_off():
    """A start that goes on from step 2 undoes step 3; one that tells step 4 had it on disk."""

    def step(incarnation, number, *, optimized=True, skipped=False):
        return events.Step(
            run="r", incarnation=incarnation, step=number, position=number, optimized=optimized,
            skipped=skipped,
        )  # fmt: skip

    told = [
        step(1, 1), step(1, 2), step(1, 3), step(2, 2, optimized=False), step(2, 3), step(3, 4),
        step(3, 5, optimized=False, skipped=True),
    ]  # fmt: skip
    assert [(1, 1), (1, 2), (2, 3), (3, 4), (3, 5)] == [
        (one.incarnation, one.step) for one in line(told)
    ]


def _with(given, **changed):
    return type(given)(**{**given.__dict__, **changed})


SERVED = [("http://a", 0.0, 0), ("http://b", 0.0, 0), ("http://a", 1.0, 1), ("http://b", 1.0, 1),
          ("http://b", 2.0, 0), ("http://a", 3.0, 2), ("http://b", 4.0, 2)]  # fmt: skip
POLICIES = [(1.5, 1, {"http://a": 1, "http://b": 1}), (3.5, 2, {"http://a": 2, "http://b": 0})]


@pytest.mark.parametrize(
    "lines,policies,wanted",
    [
        (SERVED, POLICIES, set()),
        (SERVED, [(1.5, 1, {}), POLICIES[1]], {"engine_unnamed"}),
        (SERVED, [POLICIES[0], (3.5, 2, {"http://a": 2, "http://b": 2})], {"engine_unnamed"}),
        (SERVED[:-1], POLICIES, {"engine_behind"}),
        ([*SERVED, ("http://a", 5.0, 2)], POLICIES, {"engine_back"}),
        ([*SERVED, ("http://b", 5.0, 1)], POLICIES, {"engine_back", "engine_behind"}),
    ],
)
async def test_what_engines_served_is_held_against_what_policies_say(
    clean, tmp_path, lines, policies, wanted
):
    """Named with what it had, never back, and in the end the newest."""
    log, given = clean
    path = tmp_path / "served.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    log.policies = [
        (
            SimpleNamespace(timestamp=at * 1000),
            events.Policy(name="policy", version=version, uri="file:///v", engines=engines),
        )
        for at, version, engines in policies
    ]
    assert wanted == judge(log, _with(given, served=path)).checks.keys()
