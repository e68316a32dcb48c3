"""What a step says of itself: nothing that it has not measured, and nothing that the docs do not name."""

import re
from pathlib import Path

import pytest
import torch

from odradek.trainer.feed.cursor import ConsumedRows
from odradek.trainer.step.losses import LossInputs, LossOptions
from odradek.trainer.step.metrics import STALENESS, RowFacts, StepMetrics

pytestmark = pytest.mark.torch

DOCS = Path(__file__).parents[2] / "docs" / "watch-a-run.md"
NAMES = {0: "mismatch_k3", 1: "mismatch_k3_1", 2: "mismatch_k3_2_3", 3: "mismatch_k3_2_3",
         4: "mismatch_k3_4_7", 7: "mismatch_k3_4_7", 8: "mismatch_k3_8_up", 500: "mismatch_k3_8_up"}  # fmt: skip


def measured(*batches):
    """Metrics of a step of micro-batches, each rows of (staleness, distance at each of two tokens)."""
    step = StepMetrics()
    for rows in batches:
        apart = torch.tensor([distance for _, pair in rows for distance in pair])
        old = torch.full_like(apart, -1.0)
        terms = LossInputs(
            old + apart, old, torch.ones_like(apart),
            torch.repeat_interleave(torch.arange(len(rows)), 2), len(rows),
        )  # fmt: skip
        facts = RowFacts(torch.tensor([float(late) for late, _ in rows]), torch.ones(len(rows)), 9)
        step.add(terms, torch.tensor(0.1), torch.ones_like(apart), facts, LossOptions())
    return step.finish(ConsumedRows(1, rewards=(1.0, 0.0)), 1.0)


def k3(*distances):
    values = torch.tensor(distances)
    return (values.exp() - 1 - values).mean().item()


@pytest.mark.parametrize("staleness", NAMES)
def test_engine_against_trainer_is_told_under_the_rows_staleness_and_no_other(staleness):
    """A bucket without a row was not measured: no 0 says that all is well."""
    metrics = measured([(staleness, (0.1, -0.3))])
    told = {name: value for name, value in metrics.items() if name.startswith("mismatch_k3")}
    assert {NAMES[staleness]} == set(told)
    assert k3(0.1, -0.3) == pytest.approx(told[NAMES[staleness]], abs=1e-6)
    assert (staleness == 0) == ("mismatch_max" in metrics)


def test_buckets_add_up_over_micro_batches():
    """Each is the mean over its tokens, wherever they stood."""
    metrics = measured(
        [(0, (0.1, 0.2)), (3, (0.5, 0.6))], [(2, (-0.5, 0.0)), (9, (1.0, 1.0))], [(0, (-0.4, 0.0))]
    )
    assert k3(0.1, 0.2, -0.4, 0.0) == pytest.approx(metrics["mismatch_k3"], abs=1e-6)
    assert k3(0.5, 0.6, -0.5, 0.0) == pytest.approx(metrics["mismatch_k3_2_3"], abs=1e-6)
    assert k3(1.0, 1.0) == pytest.approx(metrics["mismatch_k3_8_up"], abs=1e-6)
    assert 0.4 == pytest.approx(metrics["mismatch_max"], abs=1e-6)
    assert {"mismatch_k3_1", "mismatch_k3_4_7"} & metrics.keys() == set()


def test_the_next_step_begins_with_nothing():
    """A step without fresh rows does not repeat what the one before it measured."""
    step = StepMetrics()
    ones = torch.ones(1)
    terms = LossInputs(-ones, -ones, ones, torch.tensor([0]), 1)
    step.add(terms, torch.tensor(0.1), ones, RowFacts(torch.zeros(1), ones, 9), LossOptions())
    assert {"mismatch_k3", "mismatch_max"} <= step.finish(ConsumedRows(1), 1.0).keys()
    assert {"mismatch_k3", "mismatch_max"} & step.finish(ConsumedRows(1), 1.0).keys() == set()


def test_the_docs_name_every_metric(groups, bench):
    """Those of a step on a real batch, and those of all buckets."""
    made = bench(groups, max_steps=1, save_every=1, tis=2.0)
    made.trainer.run()
    (entry,) = [step for step in made.announced.steps if step.optimized]
    named = set(re.findall(r"`([a-z_0-9]+)`", DOCS.read_text()))
    told = {*entry.metrics, *(f"mismatch_k3{name}" for _, name in STALENESS)}
    assert set() == told - named
