"""One kill of each kind of process, half of them inside a transaction, in one small run."""

import json
import re
from pathlib import Path

import pytest

from tests.chaos.kill_plan import IN_TRANSACTION, POINTS, PROCESSES, Round, plan
from tests.chaos.processes import planted_faults
from tests.chaos.run import make_model, once, repeat
from tests.chaos.scenarios import fault_detection
from tests.chaos.verification import oracle
from tests.chaos.verification.verdict import CHECKS
from tests.chaos.workload import Workload

ROOT = Path(__file__).parent.parent.parent
FIRST = {
    "dispatcher": "after_produce_before_offsets:2",
    "agent-0": "sealed_before_status:8",
    "proxy": "turn_acked_before_release:30",
    "intake": "after_begin:6",
    "assembler-0": "after_offsets_before_commit:8",
    "grouper": "after_commit:2",
}


@pytest.mark.chaos
@pytest.mark.broker
@pytest.mark.torch
@pytest.mark.timeout(280)
async def test_one_kill_of_each_process_loses_nothing_and_counts_nothing_twice(broker, tmp_path):
    """Each episode has the tokens and the reward of its script, each batch is used once."""
    workload = Workload(
        seed=1, episodes=90, model=make_model(tmp_path / "model"), stall_s=120,
        first=FIRST, rounds=(Round("trainer", 0.3, 0.0), Round("agent-1", 0.5, 0.0)),
    )  # fmt: skip
    found = await once(workload, broker, tmp_path / "logs")
    told = {name: found[name] for name in ("lost", "duplicated", "wrong", "broke")}
    assert {"lost": [], "duplicated": [], "wrong": [], "broke": ""} == told, json.dumps(
        found, indent=1
    )
    assert {*FIRST, "trainer", "agent-1"} == {death["process"] for death in found["deaths"]}
    assert 1 <= found["kills_in_transaction"]
    assert found["counts"]["seen"] <= found["counts"]["turns"]
    assert 1 <= found["counts"]["steps"]


@pytest.mark.parametrize("verb", POINTS)
def test_every_crash_point_is_passed_somewhere(verb):
    """A point that no line passes would never kill anybody."""
    folders = {
        "proxy": "proxy",
        "agent": "agents",
        "dispatch": "agents",
        "push": "agents",
        "train": "trainer",
        "archive": "infra/archive",
    }
    # Transactions, and the points within them, are the bus' own.
    paths = [
        path
        for folder in (folders.get(verb, "streams"), "infra/bus")
        for path in (ROOT / folder).rglob("*.py")
    ]
    code = "".join(path.read_text() for path in paths)
    passed = {point for point in POINTS[verb] if re.search(rf'(\(|yield )"{point}"', code)}
    assert set() == {*POINTS[verb]} - passed


def test_a_schedule_follows_from_its_seed_and_has_as_many_kills_as_asked():
    """The command that is printed repeats the run."""
    for seed in range(200):
        for target in PROCESSES:
            made = plan(seed, [target], 10)
            assert made == plan(seed, [target], 10)
            assert 10 == made.kills
            assert [one.at for one in made.rounds] == sorted(one.at for one in made.rounds)
    assert "--seed 7 --episodes 400 --kills 4" in repeat(Workload(seed=7))


def test_a_fifth_of_the_kills_is_aimed_inside_transactions():
    """Otherwise a run proves nothing about them."""
    points = [
        point.partition(":")[0]
        for seed in range(50)
        for target in ("agent", "assemble", "group", "dispatch", "intake")
        for one in plan(seed, [target], 10).rounds
        for point in one.arms
    ]
    assert 0.2 < sum(point in IN_TRANSACTION for point in points) / (50 * 5 * 10)


def test_the_oracle_continues_a_prompt_with_the_ids_that_were_sampled():
    """What the assembler calls continuity, worked out without it."""
    for number in range(50):
        script = oracle.play_of(3, f"t{number}", 0, 1)
        for step in range(1, len(script.steps)):
            before = script.steps[step - 1][0].key
            told = oracle.prompt(oracle.history(script, step))
            known = [*oracle.history(script, step - 1), {"role": "user", "content": before}]
            assert [*oracle.prompt(known), *oracle.completion(before)] == told


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", fault_detection.PROOFS)
async def test_a_planted_fault_is_caught_and_its_control_is_clean(broker, tmp_path, fault):
    """A chaos run that lets it pass would prove nothing."""
    model = make_model(tmp_path / "model")
    told = await fault_detection.prove(
        fault, broker, tmp_path / "logs", model, seed=1, episodes=240
    )
    assert told["control_ok"], json.dumps(told["runs"][fault_detection.NONE], indent=1)
    assert told["caught_by"], json.dumps(told["runs"][fault], indent=1)


def test_a_dropped_fsync_is_caught_and_its_control_is_clean():
    """By a power cut: a kill leaves the page cache alone."""
    told = fault_detection.prove_fsync()
    assert told["control_ok"]
    assert ["checkpoint_lost"] == told["caught_by"]


def test_every_fault_has_a_schedule_and_named_checks():
    """A check that no table names catches nothing."""
    assert planted_faults.FAULTS.keys() == fault_detection.PROOFS.keys()
    for one in fault_detection.PROOFS.values():
        assert one.expect
        assert one.expect <= CHECKS.keys()


@pytest.mark.parametrize(
    ("told", "by"),
    [
        ({}, ["low_water"]),
        ({"checks": {}}, []),
        ({"checks": {"tokens": 1}}, []),
        ({"unasked_ends": {"grouper": [1]}}, []),
        ({"broke": "grouper ends again and again"}, []),
        ({"broke": "nothing moves for 25 s"}, []),
        ({"counts": {}}, []),
    ],
)
def test_only_a_named_check_of_a_run_that_held_out_is_a_catch(told, by):
    """No crash loop, no time-out, no end that nobody asked for, no other finding."""
    found = {"checks": {"low_water": 1}, "broke": "", "unasked_ends": {}, "counts": {"batches": 9}}
    assert by == fault_detection.caught_by(fault_detection.PROOFS["ghosts"], found | told)
