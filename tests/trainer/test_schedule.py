"""The learning rate over a run: it rises, it falls, and a resumed run has that of its step."""

import math

import pytest
import torch

from odradek.trainer.commit import checkpoint
from odradek.trainer.errors import BadSettings
from odradek.trainer.placement import require_optimizer
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.trl_config import config_of
from odradek.trainer.weights.moved import MovedShare
from tests.support.trainer.nan_gradients import spoil

pytestmark = pytest.mark.torch
RATE, STEPS, WARM = 2e-3, 6, 2


def rate_at(schedule, step):
    """Of the step that has `step` before it."""
    if step < WARM:
        return RATE * step / WARM
    done = (step - WARM) / (STEPS - WARM)
    return RATE * {
        "constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)),
    }[schedule]  # fmt: skip


def rates(made):
    """By step, as the ledger has them."""
    return [step.metrics["learning_rate"] for step in made.announced.steps if step.optimized]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_rate_rises_and_falls_and_a_resumed_run_goes_on_with_it(groups, bench, resume, schedule):
    """Not a bit of the weights differs from those of the run that was not stopped."""
    how = {
        "max_steps": STEPS,
        "schedule": schedule,
        "warmup_steps": WARM,
        "save_every": 1,
        "keep": 9,
    }
    whole = bench(groups, name="run", **how)
    assert STEPS == whole.trainer.run()
    assert [rate_at(schedule, step) for step in range(STEPS)] == pytest.approx(rates(whole))
    for cut in (1, 4):
        folder = whole.settings.output_dir / f"checkpoint-{cut}"
        again = bench(groups, name=f"again{cut}", standing=resume(folder), **how)
        again.trainer.run()
        assert rates(whole)[cut:] == pytest.approx(rates(again))
        expected, found = whole.weights(), again.weights()
        assert [] == [name for name in expected if not torch.equal(expected[name], found[name])]


def test_the_rate_waits_for_a_step_that_is_skipped(groups, bench):
    """It counts steps that were made."""
    made = bench(groups, max_steps=4, schedule="linear", name="run")
    spoil(made.trainer, 2)
    made.trainer.run()
    assert [RATE, RATE * 3 / 4, RATE / 2] == pytest.approx(rates(made))


def test_a_changed_schedule_is_no_changed_rate(groups, bench, resume, caplog):
    """The line of what changed compares settings, not what a schedule made of them."""
    first = bench(groups, max_steps=3, schedule="linear", name="run")
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    bench(groups, max_steps=4, schedule="linear", name="run", standing=resume(folder)).trainer.run()
    assert not [record for record in caplog.records if "from here" in record.message]


@pytest.mark.parametrize(
    ("value", "layers"), [(0, []), ("false", []), (1, [0, 1]), ("true", [0, 1]), (2, [0])]
)
def test_every_nth_layer_is_computed_twice(groups, bench, value, layers):
    """And the gradient is the same."""
    made = bench(groups, max_steps=1, gradient_checkpointing=value)
    made.trainer.run()
    twice = [layer.gradient_checkpointing for layer in made.trainer.model.model.layers]
    assert layers == [n for n, there in enumerate(twice) if there]


@pytest.mark.parametrize(
    ("device", "installed", "says"), [("cpu", True, "needs a GPU"), ("cuda", False, "pip install")]
)
def test_moments_of_eight_bits_need_a_card_and_a_library(device, installed, says):
    """In a line that says what to do."""
    require_optimizer("adamw", device, installed=False)
    require_optimizer("adamw_8bit", "cuda", installed=True)
    with pytest.raises(BadSettings, match=says):
        require_optimizer("adamw_8bit", device, installed=installed)


def test_moments_of_eight_bits_are_asked_for_by_their_name(tmp_path):
    """Up to the call that is made, since no card is here."""
    settings = TrainerSettings(output_dir=tmp_path, device="cpu", optimizer="adamw_8bit")
    assert "adamw_8bit" == config_of(settings).optim


def test_a_weight_has_moved_where_engines_see_another_number():
    """Half of a large tensor by much, all of a small one by too little for eight bits."""
    large, small = torch.ones(100_000), torch.ones(10)
    moved = MovedShare([large, small])
    assert 0 == moved.share()
    large[:50_000] += 1
    small += 1e-4
    assert moved.share() == pytest.approx(0.5, abs=0.01)


def test_a_step_tells_which_share_it_has_moved(groups, bench):
    """All of them at a high rate, hardly any at the default one."""
    shares = {}
    for rate in (2e-3, 1e-6):
        made = bench(groups, max_steps=1, learning_rate=rate, name=f"{rate}")
        made.trainer.run()
        (step,) = [step for step in made.announced.steps if step.optimized]
        shares[rate] = step.metrics["moved"]
    assert shares[2e-3] > 0.5
    assert 0 < shares[1e-6] < 0.05
