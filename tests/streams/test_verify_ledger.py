"""A trainer's ledger closes, through crashes and replays; every planted fault is named."""

import msgspec
import pytest

from odradek.schemas import codec
from odradek.schemas.events import Batch, BatchUse, Pointer, Policy, Refusal, Step
from odradek.streams.verify.findings import NEXT, Findings
from odradek.streams.verify.steps import ROW_REASONS
from odradek.streams.verify.trainer_runs import TrainerRuns

ROWS = 4
"""Of each batch; a step uses six rows."""


def batch(offset, **more):
    return Batch(
        task_id=f"t{offset}", group_size=ROWS,
        episodes=tuple(
            Pointer(episode_id=f"e{offset}-{n}", sample=n, topic="rl.episodes.v1", partition=0,
                    offset=ROWS * offset + n, digest=f"d{offset}-{n}", reward=float(n))
            for n in range(ROWS)
        ),
    )  # fmt: skip


BATCHES = {offset: batch(offset) for offset in range(7)}


def used(*pairs):
    return tuple(
        BatchUse(offset=at, rows=rows,
             digest=codec.digest("".join(p.digest for p in BATCHES[at].episodes).encode()))
        for at, rows in pairs
    )  # fmt: skip


def step(incarnation, number, position, row=0, *, version, run="main", **more):
    told = {
        "optimized": True,
        "policy": "policy",
        "weights": f"w{number}",
        "checkpoint": f"c{number}",
    }
    return Step(run=run, incarnation=incarnation, step=number, position=position, row=row,
                version=version, **(told | more))  # fmt: skip


def start(incarnation, number, position, row=0, *, version, resumed_from="", **more):
    """The two entries that a start begins with."""
    idle = {"optimized": False, "checkpoint": ""} | more
    return [
        step(incarnation, number, position, row, version=version, resumed_from=resumed_from, **(idle | {"weights": ""})),
        step(incarnation, number, position, row, version=version, **idle),
    ]  # fmt: skip


def whole_run():
    """Step 3 is lost with its process, and done again by the next start: seven batches.

    Batch 1 is refused as a whole, a row of batch 5 is stale and told by both starts.
    """
    stale = (Refusal(offset=5, reason="stale", episode_id="e5-0"),)
    equal = (Refusal(offset=1, reason="zero_variance"),)
    return [
        *start(1, 0, 0, version=1),
        step(1, 1, 2, 2, version=2, used=used((0, 4), (2, 2)), refused=equal),
        step(1, 2, 4, version=3, used=used((2, 2), (3, 4))),
        step(1, 3, 5, 3, version=4, used=used((4, 4), (5, 2)), refused=stale, checkpoint="",
             weights="cut off"),
        *start(2, 2, 4, version=5, resumed_from="c2"),
        step(2, 3, 5, 3, version=6, used=used((4, 4), (5, 2)), refused=stale),
        *start(3, 3, 5, 3, version=7, resumed_from="c3"),
        step(3, 4, 7, version=8, used=used((5, 1), (6, 4))),
    ]  # fmt: skip


def policies():
    """Those that were announced: version 4 never was."""
    told = {1: "w0", 2: "w1", 3: "w2", 5: "w2", 6: "w3", 7: "w3", 8: "w4"}
    return [Policy(name="policy", version=v, uri="", digest=digest) for v, digest in told.items()]


def check(steps, batches=None, told=(), rows=ROWS):
    found = Findings()
    trained = TrainerRuns(found)
    for offset, one in (BATCHES if batches is None else batches).items():
        trained.batch("rl.batches.v1", offset, one)
    for offset, entry in enumerate(steps):
        trained.step(entry, offset)
    for policy in told:
        trained.policy(policy)
    tables = trained.check(lambda _: rows // ROWS)
    return found, tables


def test_a_run_with_two_crashes_closes():
    """Steps done again replace those cut off; rows are counted once."""
    found, (table,) = check(whole_run(), told=policies())
    assert found.none, found
    assert (4, 1, 3, 23) == tuple(
        table[name] for name in ("steps", "steps_redone", "starts", "rows_used")
    )
    assert {"stale": 1, "zero_variance": 1} == table["refused"]
    assert (7, 0, 8) == tuple(table[name] for name in ("position", "waiting", "version"))


@pytest.mark.parametrize("reason", sorted(ROW_REASONS))
def test_a_refused_row_is_one_row_and_not_its_whole_episode(reason):
    """Of an episode of two rows, one refused and one used, none is lost."""
    refused = (Refusal(offset=0, reason=reason, episode_id="e0-0", row=0),)
    steps = [
        *start(1, 0, 0, version=1),
        step(1, 1, 1, version=2, used=used((0, 7)), refused=refused),
    ]
    found, (table,) = check(steps, batches={0: BATCHES[0]}, rows=2 * ROWS)
    assert found.none, found
    assert {reason: 1} == table["refused"]


def test_a_skipped_step_is_a_step_of_the_line_that_used_nothing():
    """Its rows are refused; the start that goes on behind it does not come to them again."""
    refused = tuple(
        Refusal(offset=at, reason="non_finite", episode_id=f"e{at}-{row}", row=row)
        for at, row in [(2, 2), (2, 3), (3, 0), (3, 1), (3, 2), (3, 3)]
    )
    steps = whole_run()
    steps[3] = step(1, 2, 4, version=2, optimized=False, skipped=True, refused=refused,
                    weights="w1")  # fmt: skip
    found, (table,) = check(steps)
    assert found.none, found
    assert (4, 1, 17) == tuple(table[name] for name in ("steps", "steps_skipped", "rows_used"))
    assert {"stale": 1, "zero_variance": 1, "non_finite": 6} == table["refused"]


def test_a_skipped_step_that_is_missing_or_forgets_a_row_is_found():
    """The ledger closes only if every row of it is refused by name."""
    refused = tuple(
        Refusal(offset=at, reason="non_finite", episode_id=f"e{at}-{row}", row=row)
        for at, row in [(2, 2), (2, 3), (3, 0), (3, 1), (3, 2)]
    )
    steps = whole_run()
    steps[3] = step(1, 2, 4, version=2, optimized=False, skipped=True, refused=refused,
                    weights="w1")  # fmt: skip
    assert any("batch 3" in one for one in check(steps)[0].lost)
    steps[3] = step(1, 2, 4, version=2, optimized=False, weights="w1")
    assert any("step 2" in one for one in check(steps)[0].lost)


def planted(**changes):
    """The run with changes to its entries, by index."""
    steps = whole_run()
    for index, change in changes.items():
        number = int(index.removeprefix("at"))
        steps[number] = msgspec.structs.replace(steps[number], **change)
    return steps


def dropped(index):
    steps = planted()
    del steps[index]
    return steps


FAULTS = {
    "a step that is missing": (dropped(3), "lost", "step 2 of run main"),
    "rows that nobody used": (
        planted(at3={"used": used((2, 2), (3, 3))}),
        "lost", "batch 3 of run main: 4 rows, but 3 used and 0 refused",
    ),
    "a batch dropped silently": (
        planted(at2={"refused": ()}), "lost", "batch 1 of run main: neither used nor refused",
    ),
    "a row used twice": (
        planted(at7={"used": used((4, 5), (5, 2))}),
        "duplicated", "batch 4 of run main: 4 rows, but 5 used and 0 refused",
    ),
    "a refused batch used": (
        planted(at2={"used": used((0, 4), (1, 2))}),
        "duplicated", "batch 1 of run main: refused as a whole, and 2 rows used",
    ),
    "a step told twice by one start": (
        [*planted()[:3], step(1, 1, 2, 2, version=2, used=(), weights="w1"), *planted()[3:]],
        "duplicated", "step 1 of run main",
    ),
    "a batch from elsewhere": (
        planted(at3={"used": used((2, 2), (3, 4), (6, 0))}),
        "problems", "run main: step 2 used batch 6, which does not lie between 2 and 4",
    ),
    "a position that goes back": (
        planted(at3={"position": 2, "row": 0, "checkpoint": "", "used": used((2, 2))}),
        "problems", "run main: step 2 ends at batch 2, row 0, before step 1 does",
    ),
    "another batch at the same offset": (
        planted(at3={"used": (BatchUse(offset=2, rows=2, digest="0" * 64), BatchUse(offset=3, rows=4))}),
        "problems",
        "run main: step 2 used another batch 2 than the one that stands there",
    ),
    "a start from a checkpoint that nobody told": (
        planted(at5={"resumed_from": "c9"}),
        "problems",
        "run main: start 2 goes on from a checkpoint that no step of the ledger announced (c9)",
    ),
    "a start that skips rows": (
        planted(at5={"position": 4, "row": 1}),
        "problems",
        "run main: start 2 goes on at batch 4, row 1, but its checkpoint was written at batch 4, row 0",
    ),
    "two trainers at once": (
        [*planted(), step(1, 4, 7, version=9)],
        "problems",
        "run main: start 1 told step 4 after start 3 had begun: two trainers at once",
    ),
    "a version used again by a later start": (
        planted(at5={"version": 4}, at6={"version": 4}),
        "problems", "policy policy: version 4 was used by start 1 of run main and start 2 of run main",
    ),
    "a version that stands for two sets of weights": (
        planted(at3={"version": 2}),
        "problems", "policy policy: version 2 stands for different weights (w1 and w2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault):
    """Each under its kind, and each kind says what to do next."""
    steps, kind, line = FAULTS[fault]
    found, _ = check(steps)
    assert line in found.lists()[kind]
    assert NEXT[kind]


def test_a_policy_that_no_step_took_is_named():
    """An announcement that did not come from the run's trainer."""
    stray = Policy(name="policy", version=99, uri="", digest="w9")
    found, _ = check(planted(), told=[*policies(), stray])
    assert ["policy policy: version 99 was announced, but no step took it"] == found.problems


def test_several_runs_on_one_log_are_held_apart():
    """Two trainers under their own names use the same batches; a third has not come far yet."""
    second = [
        msgspec.structs.replace(one, run="second", policy="other", sampled_by="main")
        for one in planted()
    ]
    third = [msgspec.structs.replace(one, run="third", policy="third") for one in planted()[:3]]
    mixed = [one for three in zip(planted(), second, strict=True) for one in three] + third
    found, tables = check(mixed, told=policies())
    assert found.none, found
    assert [("main", "", 0), ("second", "main", 0), ("third", "", 5)] == [
        (table["run"], table["sampled_by"], table["waiting"]) for table in tables
    ]


def test_what_a_trainer_beside_another_lost_is_its_own_loss():
    """The batch that it passed without a word is named with its run; the other's count closes."""
    second = [
        msgspec.structs.replace(
            one, run="second", policy="other", sampled_by="main",
            used=tuple(use for use in one.used if use.offset != 4),
        )
        for one in planted()
    ]  # fmt: skip
    found, _ = check([*planted(), *second], told=policies())
    assert found.lost
    assert all("of run second" in line for line in found.lost)


def refused_between(first, second, **more):
    """A step refuses `first` of batch 1 and dies; the next start goes on there, refuses `second`."""
    return [
        *start(1, 0, 0, version=1),
        step(1, 1, 1, 2, version=2, used=used((0, 4)), refused=first),
        *start(2, 1, 1, 2, version=3, resumed_from="c1"),
        step(2, 2, 2, version=4, used=used((1, 2)), refused=second),
    ]


def stale(row):
    return Refusal(offset=1, reason="stale", episode_id="e1-0", row=row)


def test_rows_of_one_episode_refused_before_and_after_a_resume_are_two():
    """Two sequences of an episode, both stale: a start between them does not make them one."""
    found, (table,) = check(refused_between((stale(0),), (stale(3),)))
    assert found.none, found
    assert {"stale": 2} == table["refused"]


def test_a_row_refused_before_and_after_a_resume_is_one():
    """The start that died had told of a row that its checkpoint did not reach."""
    found, (table,) = check(refused_between((stale(0), stale(3)), (stale(3),)))
    assert found.none, found
    assert {"stale": 2} == table["refused"]


def test_a_row_that_only_the_line_that_was_cut_off_refused_is_not_refused():
    """What it told of rows behind its checkpoint is told again, or the row was used."""
    found, (table,) = check(refused_between((stale(0), stale(3)), ()))
    assert ["batch 1 of run main: 4 rows, but 2 used and 1 refused"] == found.lost
    assert {"stale": 1} == table["refused"]


def test_a_row_refused_twice_by_one_start_is_named():
    """It was passed once, so one of the two is wrong."""
    found, _ = check(refused_between((stale(0), stale(0)), (stale(3),)))
    assert ["batch 1 of run main: 4 rows, but 2 used and 3 refused"] == found.duplicated


def test_two_runs_that_count_one_policy_may_not_share_a_number():
    """Engines know a version by its number alone."""
    second = [msgspec.structs.replace(one, run="second") for one in planted()]
    found, _ = check([*planted(), *second])
    assert "policy policy: version 1 was used by start 1 of run main and start 1 of run second" in (
        found.problems
    )


def test_an_entry_that_was_appended_twice_is_one():
    """A producer that saw no ack says the same once more."""
    steps = [one for entry in planted() for one in (entry, entry)]
    found, (table,) = check(steps, told=policies())
    assert found.none, found
    assert 4 == table["steps"]


def test_a_ledger_whose_beginning_retention_took_is_held_to_what_is_left():
    """Nothing is lost because it is old."""
    found = Findings()
    trained = TrainerRuns(found)
    for offset, entry in enumerate(planted()[7:], start=7):
        trained.step(entry, offset)
    for offset in (5, 6):
        trained.batch("rl.batches.v1", offset, BATCHES[offset])
    trained.check(lambda _: 1)
    assert found.none, found


def test_a_checkpoint_may_be_told_behind_later_steps():
    """It is written while the run goes on; its entry is of its own step and place, and passes nothing."""
    steps = whole_run()
    for at in (1, 2):  # their own entries told of no checkpoint
        steps[1 + at] = msgspec.structs.replace(steps[1 + at], checkpoint="")
    durable = [
        step(1, 1, 2, 2, version=3, optimized=False, checkpoint="c1", weights="w2"),
        step(1, 2, 4, version=4, optimized=False, checkpoint="c2", weights="cut off"),
    ]
    found, (table,) = check([*steps[:5], *durable, *steps[5:]], told=policies())
    assert found.none, found
    assert (4, 23, 7) == tuple(table[name] for name in ("steps", "rows_used", "position"))
    idle = step(3, 4, 9, version=8, optimized=False, checkpoint="")
    behind = step(3, 3, 5, 3, version=8, optimized=False, checkpoint="c3b", weights="w4")
    _, (table,) = check([*steps[:5], *durable, *steps[5:], idle, behind])
    assert 9 == table["position"]
