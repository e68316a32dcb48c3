"""The first difference between steps and runs."""

import json
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.cli.look import diff
from odradek.infra.app.history.difference import (
    NOTHING,
    RunSteps,
    first_difference,
    of_runs,
    of_steps,
)
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.bus import BusSettings, looking_up
from odradek.schemas.events import BatchUse, Step
from odradek.trainer.settings import TrainerSettings
from tests.support.trainer.trained_log import TrainedLog

values = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=1), inner),
    max_leaves=8,
)


def at_path(value, path):
    """What stands at a path, or NOTHING."""
    for part in path.replace("[", ".[").split("."):
        if not part and not isinstance(value, dict):
            continue
        try:
            value = value[int(part[1:-1])] if part.startswith("[") else value[part]
        except (KeyError, IndexError):
            return NOTHING
    return value


@given(left=values, right=values)
def test_equal_values_have_no_first_difference_and_others_have_one(left, right):
    """What is named on both sides differs, and is symmetric in whether there is any."""
    found = first_difference(left, right)
    assert (found is None) == (left == right)
    assert (found is None) == (first_difference(right, left) is None)
    if found is not None:
        assert found.left != found.right


@pytest.mark.parametrize(
    ("left", "right", "path"),
    [
        ({"a": [1, 2, 3]}, {"a": [1, 9, 8]}, "a[1]"),
        ({"a": 1}, {"a": 1, "b": 2}, "b"),
        ({"a": [1]}, {"a": [1, 2]}, "a[1]"),
        ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 2}]}}, "a.b[0].c"),
    ],
)
def test_the_path_leads_to_what_differs(left, right, path):
    """The first of several, in order."""
    found = first_difference(left, right)
    assert path == found.path
    assert (at_path(left, path), at_path(right, path)) == (found.left, found.right)


def run_of(*steps, settings=None):
    """Steps of one batch each, as (digest, weights)."""
    entries = {
        number: (f"rl.steps.v1/0/{number}", Step(
            run="x", incarnation=1, step=number, position=number, weights=weights,
            used=(BatchUse(offset=number, rows=4, digest=digest),),
        ))
        for number, (digest, weights) in enumerate(steps, 1)
    }  # fmt: skip
    return RunSteps(settings or {}, "rl.steps.v1/0/0", entries)


@pytest.mark.parametrize(
    ("other", "path", "compared"),
    [
        (run_of(("a", "1"), ("b", "2")), None, 2),
        (run_of(("a", "1"), ("c", "3")), "step 2.used[0].digest", 2),
        (run_of(("a", "9"), ("b", "2")), "step 1.weights", 1),
        (run_of(("a", "1")), "step 2", 2),
        (run_of(settings={"seed": 1, "replay_of": "x"}), "settings.seed", 0),
    ],
)
def test_runs_are_compared_step_by_step(other, path, compared):
    """By what they used and what came of it; what they learned by is named before."""
    found = of_runs(run_of(("a", "1"), ("b", "2"), settings={"seed": 0}), other)
    assert (path is None, compared) == (found.equal, found.compared)
    assert path == (found.difference and found.difference.path)


@pytest.mark.broker
async def test_a_step_differs_from_another_in_what_it_was_trained_on(bus):
    """Not in where it stands; the first token that differs is named with both places."""
    log = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=6))
    await log.publish(12)
    await log.train(3)
    async with looking_up(bus) as lookup:
        history = LogHistory(lookup)
        one, two = await history.step(1), await history.step(2)
        assert of_steps(one, msgspec.structs.replace(one, at="elsewhere", run="again")).equal
        assert "batches[0]" == of_steps(one, two).difference.path
        batch = one.batches[0]
        row = batch.rows[1]
        tokens = msgspec.structs.replace(row.tokens, logprobs=(*row.tokens.logprobs[:-1], -9.0))
        rows = (batch.rows[0], msgspec.structs.replace(row, tokens=tokens), *batch.rows[2:])
        changed = msgspec.structs.replace(
            one, batches=(msgspec.structs.replace(batch, rows=rows), *one.batches[1:])
        )
        found = of_steps(one, changed).difference
        assert f"batches[0].rows[1].tokens.logprobs[{len(row.tokens.ids) - 1}]" == found.path
        assert (row.at, row.at, -9.0) == (found.left_at, found.right_at, found.right)


def test_the_verb_ends_as_diff_does(broker, monkeypatch):
    """With 0 where two are equal, and 1 where they differ."""
    import asyncio

    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.")
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)
    log = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=6))

    async def prepare():
        await log.publish(12)
        await log.train(2)
        other = TrainedLog(bus, TrainerSettings(model="m", rows_per_step=6, run="again"))
        other.offset_of = log.offset_of
        await other.train(3)

    asyncio.run(prepare())

    def call(*words):
        return CliRunner().invoke(diff.command, words)

    equal = call("step", "2", "again:2")
    assert (0, "2 and again:2 are equal in 1 steps\n") == (equal.exit_code, equal.stdout)
    found = call("run", "main", "again")
    assert (1, "first difference: step 3") == (found.exit_code, found.stdout.splitlines()[0])
    assert (
        "step 3" == json.loads(call("run", "main", "again", "--json").stdout)["difference"]["path"]
    )
    assert "names no step" in call("step", "2", "x").output
