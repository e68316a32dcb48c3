"""A step that comes to no number moves nothing, is told, and is never met again."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.protocol import MOST_SKIPPED
from odradek.trainer.errors import NonFiniteSteps, NonFiniteWeights
from odradek.trainer.step import scores
from tests.support.trainer.nan_gradients import spoil

pytestmark = pytest.mark.torch


def by_step(announced):
    """The ledger's entries of optimizer steps, made or skipped, by number."""
    return {e.step: e for e in announced.steps if e.optimized or e.skipped}


def gradient(made, monkeypatch):
    spoil(made.trainer, 2)


def endless_gradient(made, monkeypatch):
    spoil(made.trainer, 2, number=math.inf)


def loss_of(number):
    def plant(made, monkeypatch):
        true = scores.policy_loss

        def spoiled(*args):
            value = true(*args)
            return value + number if made.trainer.state.global_step == 1 else value

        monkeypatch.setattr(scores, "policy_loss", spoiled)

    return plant


def reference(made, monkeypatch):
    """A reference model that is none, in one step."""
    score = made.trainer._scores._score

    def spoiled(model, inputs):
        out = score(model, inputs)
        if model is made.trainer._reference and made.trainer.state.global_step == 1:
            return out._replace(logprobs=out.logprobs * math.nan)
        return out

    monkeypatch.setattr(made.trainer._scores, "_score", spoiled)


def learning_rate(made, monkeypatch):
    """One step with a rate at which Adam leaves float32."""
    look = made.trainer._get_grad_norm

    def fast(*args, **more):
        for group in made.trainer._inner_optimizer.param_groups:
            group["lr"] = 1e39 if made.trainer.state.global_step == 1 else 2e-3
        return look(*args, **more)

    monkeypatch.setattr(made.trainer, "_get_grad_norm", fast)


PLANTS = {
    "gradient": gradient,
    "endless gradient": endless_gradient,
    "loss": loss_of(math.nan),
    "endless loss": loss_of(-math.inf),
    "reference": reference,
    "learning rate": learning_rate,
}


@pytest.fixture(scope="module")
def without():
    """Weights of runs that never saw the second step's rows, by what they were trained with."""
    return {}


def weights_without(without, bench, groups, **settings):
    """Those after two steps: on the rows of the first, and of the third."""
    name = str(sorted(settings.items()))
    if name not in without:
        made = bench(groups, max_steps=2, name="without", **settings)
        feed, seen = made.consumption.feed, []

        def but_the_second(group):
            rows = feed(group)
            begin = len(seen)
            seen.extend(rows)
            return [row for n, row in enumerate(rows, begin) if not 16 <= n < 32]

        made.consumption.feed = but_the_second
        made.trainer.run()
        without[name] = made.weights()
    return without[name]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_skipped_step_leaves_no_trace_in_the_weights(bench, groups, without, monkeypatch, plant):
    """Weights are those of a run that never saw its rows: moments and schedule stood still."""
    more = {"kl": 0.1} if plant == "reference" else {}
    made = bench(groups, max_steps=3, **more)
    PLANTS[plant](made, monkeypatch)
    assert 3 == made.trainer.run()
    monkeypatch.undo()
    expected = weights_without(without, bench, groups, **more)
    for name, weights in made.weights().items():
        assert torch.equal(expected[name], weights), name
    skipped = by_step(made.announced)[2]
    assert (True, False, ()) == (skipped.skipped, skipped.optimized, skipped.used)
    assert 16 == sum(refusal.reason == "non_finite" for refusal in skipped.refused)
    assert all(refusal.row is not None for refusal in skipped.refused)
    assert all(math.isfinite(value) for value in skipped.metrics.values())
    told = [(policy.version, policy.step) for policy in made.announced.policies]
    assert [(1, 0), (2, 1), (3, 2), (4, 3)] == told
    assert 3 == skipped.version
    assert skipped.weights == by_step(made.announced)[1].weights
    rates = [group["lr"] for group in made.trainer._inner_optimizer.param_groups]
    assert [2e-3] * len(rates) == rates


def test_the_scheduler_stands_still_with_the_step(bench, groups):
    """It has counted the steps that were made."""
    made = bench(groups, max_steps=4)
    spoil(made.trainer, 2, 3)
    made.trainer.run()
    assert 2 == made.trainer.lr_scheduler.state_dict()["last_epoch"]


def test_a_skipped_step_is_durable_whatever_save_every_says(bench, groups, resume):
    """The position is behind its rows, and the weights are those of before."""
    made = bench(groups, max_steps=2, save_every=1000, name="run")
    spoil(made.trainer, 1)
    before = {name: value.clone() for name, value in made.trainer.model.state_dict().items()}
    made.trainer.finish_step = dying_after(made, 1)
    with pytest.raises(KeyboardInterrupt):
        made.trainer.run()
    folder = checkpoint.newest(made.settings.output_dir)
    standing = resume(folder)
    assert (1, made.consumption.position) == (standing.position.step, standing.position)
    saved = load_file(folder / "model.safetensors")
    assert saved
    assert all(torch.equal(before[name], value) for name, value in saved.items())
    again = bench(groups, max_steps=2, name="run", standing=standing)
    again.trainer.run()
    assert [2] == list(by_step(again.announced))
    used = {use.offset for use in by_step(again.announced)[2].used}
    refused = {r.offset for r in by_step(made.announced)[1].refused if r.reason == "non_finite"}
    assert min(used) >= max(refused)


def dying_after(made, last):
    """The trainer's `finish_step`, behind which nothing comes any more."""
    finish = made.trainer.finish_step

    def finished(step):
        finish(step)
        if step == last:
            raise KeyboardInterrupt

    return finished


def test_after_three_in_a_row_the_run_ends_with_one_line(bench, groups, resume):
    """All of them are told; the next start ends with its first, or goes on as if nothing was."""
    made = bench(groups, max_steps=9, name="run")
    spoil(made.trainer, *range(2, 99))
    with pytest.raises(NonFiniteSteps, match=r"3 steps in a row .* step 4"):
        made.trainer.run()
    assert 3 == MOST_SKIPPED
    told = by_step(made.announced)
    assert [False, True, True, True] == [told[n].skipped for n in (1, 2, 3, 4)]
    assert 48 == sum(r.reason == "non_finite" for entry in told.values() for r in entry.refused)
    assert [0, 1, 2, 3, 4] == [policy.step for policy in made.announced.policies]
    assert 1 == len({policy.digest for policy in made.announced.policies[1:]})
    folder = checkpoint.newest(made.settings.output_dir)
    assert "checkpoint-4" == folder.name
    assert told[4].checkpoint == checkpoint.verify(folder)

    def standing():
        found = resume(folder)
        found.skipped = checkpoint.position_of(folder)["skipped"]
        return found

    worse = bench(groups, max_steps=9, name="run", standing=standing())
    spoil(worse.trainer, *range(5, 99))
    with pytest.raises(NonFiniteSteps, match="4 steps in a row"):
        worse.trainer.run()
    better = bench(groups, max_steps=9, name="run", standing=standing())
    spoil(better.trainer, 6, 7, 9)
    assert 9 == better.trainer.run()
    assert [False, True, True, False, True] == [
        by_step(better.announced)[n].skipped for n in range(5, 10)
    ]


def test_a_due_step_that_is_skipped_brings_the_weights_as_they_stand(bench, groups):
    """`sync_every` of 2, and every second step skipped: engines are not left behind."""
    made = bench(groups, max_steps=7, sync_every=2)
    spoil(made.trainer, 2, 4)
    made.trainer.run()
    policies = made.announced.policies
    assert [0, 2, 4, 6] == [policy.step for policy in policies]
    told = by_step(made.announced)
    assert [policy.digest for policy in policies[1:]] == [told[n].weights for n in (2, 4, 6)]
    assert 4 == len({policy.digest for policy in policies})


def test_a_model_that_is_none_is_neither_sent_nor_trained(bench, groups, tiny, tmp_path):
    """Before a version is taken."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in tiny.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    last = max(weights)
    weights[last].view(-1)[0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteWeights, match=last):
        bench(groups, max_steps=2, model=str(folder))  # so nothing is there that could announce
    written = {path.name for path in tmp_path.rglob("*.safetensors")}
    assert {"model.safetensors"} == written
    assert [folder / "model.safetensors"] == list(tmp_path.rglob("model.safetensors"))


def test_an_optimizer_that_does_what_nobody_foresaw_leaves_nothing_behind(bench, groups):
    """Its weights are neither saved nor sent nor told."""
    made = bench(groups, max_steps=3, save_every=1)

    def beyond(optimizer, args, kwargs):
        if made.trainer.state.global_step == 1:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].view(-1)[0] = math.nan

    look = made.trainer._get_grad_norm

    def hooked(*args, **more):
        norm = look(*args, **more)
        if made.trainer.state.global_step == 1:
            made.trainer._inner_optimizer.register_step_post_hook(beyond)
        return norm

    made.trainer._get_grad_norm = hooked
    with pytest.raises(NonFiniteWeights, match="step 2"):
        made.trainer.run()
    assert [1] == list(by_step(made.announced))
    assert [1, 2] == [policy.version for policy in made.announced.policies]
    assert "checkpoint-1" == checkpoint.newest(made.settings.output_dir).name
