"""The trainer on lists of groups: on-policy first steps, resuming, what is announced in which order."""

import contextlib

import pytest
import torch
from msgspec.structs import replace as changed

from odradek.schemas.arrays import pack_ids
from odradek.trainer.commit import checkpoint
from odradek.trainer.errors import NoTokenizer
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.step import grpo
from tests.support.trainer.played_groups import group_with_rewards

pytestmark = pytest.mark.torch


def test_the_first_step_is_on_policy(groups, bench):
    """Number 3: ratio 1 and KL 0, because trainer and engine compute the same."""
    made = bench(groups, max_steps=1, rows_per_step=64, micro_tokens=600)
    made.trainer.run()
    (step,) = [step for step in made.announced.steps if step.optimized]
    assert 1 == pytest.approx(step.metrics["ratio_mean"], abs=1e-5)
    assert 0 == pytest.approx(step.metrics["kl"], abs=1e-8)
    assert 0 == pytest.approx(step.metrics["mismatch_k3"], abs=1e-8)
    assert step.metrics["mismatch_max"] < 1e-4
    assert (64, 0) == (step.metrics["rows"], step.metrics["staleness_max"])
    assert step.metrics["grad_norm"] > 0


@pytest.mark.parametrize("cut", [1, 3])
def test_a_resumed_run_ends_with_bit_equal_weights(groups, bench, resume, cut):
    """Stopped after any step and gone on: not a bit differs, optimizer and position included."""
    whole = bench(groups, max_steps=5, name="whole")
    whole.trainer.run()
    first = bench(groups, max_steps=cut, name="cut")
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    second = bench(groups, max_steps=5, name="cut", standing=resume(folder))
    assert 5 == second.trainer.run()
    for name, weights in whole.weights().items():
        assert torch.equal(weights, second.weights()[name]), name
    used = [s.used for b in (first, second) for s in b.announced.steps if s.optimized]
    assert [s.used for s in whole.announced.steps if s.optimized] == used
    versions = [policy.version for b in (first, second) for policy in b.announced.policies]
    assert versions == sorted(set(versions))


def test_a_run_in_many_shards_resumes_with_bit_equal_weights(groups, bench, resume, monkeypatch):
    """Weights, moments and the proximal policy; what travels is held against its index."""
    from odradek.schemas.events import Policy
    from odradek.trainer.engine.policies import folder_of
    from odradek.trainer.saving import shards

    whole = bench(groups, max_steps=3, name="whole", tis=2.0)
    whole.trainer.run()
    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    first = bench(groups, max_steps=1, name="cut", tis=2.0)
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    for prefix in ("model", "optimizer", "proximal"):
        assert len(list(folder.glob(f"{prefix}-0*.safetensors"))) > 2
    second = bench(groups, max_steps=3, name="cut", standing=resume(folder), tis=2.0)
    second.trainer.run()
    assert [] == [n for n, w in whole.weights().items() if not torch.equal(w, second.weights()[n])]
    policy: Policy = second.announced.policies[-1]
    assert len(list(folder_of(policy).glob("model-0*.safetensors"))) > 2


def noisy(terms, shape):
    """A person's loss that draws random numbers."""
    ratio = (terms.logprobs - terms.old_logprobs).exp()
    return -terms.advantages * ratio * torch.rand_like(ratio)


def test_a_loss_that_draws_draws_the_same_after_a_resume(groups, bench, resume, monkeypatch):
    """What a step draws follows from the seed and its number, whatever else was drawn before."""
    import sys

    monkeypatch.setitem(sys.modules, "noisy_loss", sys.modules[__name__])
    whole = bench(groups, max_steps=3, name="whole", loss="noisy_loss:noisy")
    whole.trainer.run()
    first = bench(groups, max_steps=1, name="cut", loss="noisy_loss:noisy")
    first.trainer.run()
    torch.rand(17)
    folder = checkpoint.newest(first.settings.output_dir)
    second = bench(
        groups, max_steps=3, name="cut", standing=resume(folder), loss="noisy_loss:noisy"
    )
    second.trainer.run()
    assert [] == [n for n, w in whole.weights().items() if not torch.equal(w, second.weights()[n])]


def test_the_same_batches_give_the_same_weights(groups, bench):
    """A replay, in process."""
    runs = [bench(groups, max_steps=3, name=name) for name in ("one", "two")]
    for made in runs:
        made.trainer.run()
    one, two = (made.weights() for made in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert runs[0].announced.steps[-1].weights == runs[1].announced.steps[-1].weights != ""


def test_a_run_ends_where_its_rows_end_and_leaves_the_remainder_alone(groups, bench):
    """Part of a step is no step."""
    made = bench(groups[:4], max_steps=1000, rows_per_step=16)
    rows = sum(len(g.episodes) for g in groups[:4] if not g.batch.zero_variance)
    assert rows // 16 == made.trainer.run()
    assert rows % 16 == made.consumption.waiting
    assert checkpoint.newest(made.settings.output_dir) is not None


def test_no_rows_at_all_make_no_step_and_no_checkpoint(groups, bench):
    """An empty batch never moves the weights."""
    equal = [g for g in groups if g.batch.zero_variance]
    made = bench(equal, max_steps=10)
    before = made.weights()
    assert 0 == made.trainer.run()
    assert all(torch.equal(value, made.weights()[name]) for name, value in before.items())
    assert [] == checkpoint.whole(made.settings.output_dir)


def test_a_checkpoint_is_known_once_it_is_durable(groups, bench, monkeypatch):
    """Engine, policy, ledger, in this order for every step; each checkpoint behind its rename."""
    made = bench(groups, max_steps=2, save_every=1)
    told, durable = [], []
    transfer = made.trainer.parts.transfer
    resume = transfer.resume
    monkeypatch.setattr(transfer, "resume", lambda: (told.append("engine"), resume())[1])

    def step(entry):
        told.append("step" if entry.optimized or not entry.checkpoint else "durable")
        if entry.checkpoint:
            folder = made.settings.output_dir / f"checkpoint-{entry.step}"
            durable.append((entry.step, entry.checkpoint == checkpoint.verify(folder)))
        made.announced.steps.append(entry)

    policy = made.announced.policy
    monkeypatch.setattr(made.announced, "step", step)
    monkeypatch.setattr(
        made.announced, "policy", lambda event: (told.append("policy"), policy(event))[1]
    )
    made.trainer.run()
    start = ["step", "engine", "policy", "step"]  # the first one takes the version
    assert start * 3 == [what for what in told if what != "durable"]
    assert [(1, True), (2, True)] == durable
    assert [1, 2, 3] == [policy.version for policy in made.announced.policies]


def test_an_entry_that_a_crash_swallowed_is_told_by_the_next_start(groups, bench, resume):
    """The checkpoint carries its own entry, so no step is missing from the ledger."""
    first = bench(groups, max_steps=2, save_every=1)

    def die(step):
        if step.step == 2 and step.optimized:
            raise KeyboardInterrupt
        first.announced.steps.append(step)

    first.announced.step = die
    with pytest.raises(KeyboardInterrupt):
        first.trainer.run()
    from odradek.trainer.commit.resume import stand

    standing = stand(first.settings, first.announced.steps, first.announced.policies)
    assert (2, 2, 3) == (standing.incarnation, standing.position.step, standing.version)
    second = bench(groups, max_steps=3, save_every=1, standing=standing)
    second.trainer.run()
    taken, entry = second.announced.steps[:2]
    assert (4, False, "", checkpoint.verify(standing.folder)) == (
        taken.version, taken.optimized, taken.weights, taken.resumed_from
    )  # fmt: skip
    assert (2, True, 4) == (entry.step, entry.optimized, entry.version)
    assert second.settings.rows_per_step == taken.settings["rows_per_step"]
    assert {} == entry.settings, "only a start's first entry has the settings"
    assert sum(use.rows for use in entry.used) == 16
    assert checkpoint.verify(standing.folder) == entry.checkpoint


def test_a_step_is_a_span_that_names_its_batches(groups, bench, monkeypatch):
    """Run, step and offsets: what a trace needs to find the batches' own."""
    told = []

    @contextlib.contextmanager
    def span(name, **attributes):
        told.append((name, attributes))
        yield None

    monkeypatch.setattr(grpo.telemetry, "span", span)
    made = bench(groups, max_steps=1)
    made.trainer.run()
    (entry,) = [step for step in made.announced.steps if step.optimized]
    offsets = [use.offset for use in entry.used]
    assert [
        ("trainer.step", {"run": "main", "step": 1, "topic": "rl.batches.v1", "batches": offsets})
    ] == told


def test_stale_rows_are_refused_with_their_reason(groups, bench):
    """All were sampled by version 1: from step 3 on they are too old for a bound of 1."""
    made = bench(groups, max_steps=10, max_staleness=1)
    assert 2 == made.trainer.run()
    reasons = {r.reason for step in made.announced.steps for r in step.refused}
    waiting = made.consumption.passed_idle()
    assert "stale" in reasons | {r.reason for r in waiting.refused}


def test_tokens_that_the_model_has_not_do_not_end_a_run(groups, bench):
    """An engine with another model: its rows are refused, and the next ones are trained on."""
    alien = group_with_rewards(0, [1.0, 0.0])
    pairs = tuple(
        (p, changed(e, sequences=(changed(e.sequences[0], ids=pack_ids([5, 1_000_000, 7, 3])),)))
        for p, e in alien.episodes
    )
    made = bench([EpisodeGroup(0, alien.batch, pairs), *groups[1:]], max_steps=1)
    assert 1 == made.trainer.run()
    (step,) = [step for step in made.announced.steps if step.optimized]
    refused = [(r.offset, r.row) for r in step.refused if r.reason == "token_ids"]
    assert [(0, 0), (0, 1)] == refused


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "gspo", "cispo"])
def test_every_loss_trains(groups, bench, loss):
    """Each moves the weights by finite steps, with KL and TIS as well."""
    more = {"kl": 0.1, "tis": 2.0} if loss == "grpo" else {}
    made = bench(groups, max_steps=2, loss=loss, **more)
    before = made.weights()
    made.trainer.run()
    after = made.weights()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_stopping_saves_what_was_done(groups, bench):
    """SIGTERM sets `stopping`: the step under way is finished, saved and told."""
    made = bench(groups, max_steps=1000)
    finish = made.trainer.finish_step

    def finish_and_stop(step):
        made.trainer.parts.feed.stopping.set()
        finish(step)

    made.trainer.finish_step = finish_and_stop
    assert 1 == made.trainer.run()
    assert 1 == checkpoint.position_of(checkpoint.newest(made.settings.output_dir))["step"]


def test_a_reader_that_fails_ends_the_run_with_its_own_error(bench):
    """No silence: what the reading thread met is raised where training waits."""
    made = bench([], max_steps=5)

    class Broken:
        def next(self, timeout_s):
            raise RuntimeError("retention has deleted it")

        def ended(self):
            return False

        def close(self):
            pass

    feed = made.trainer.parts.feed
    assert isinstance(feed, LogRolloutWorker)
    feed._source = Broken()
    with pytest.raises(RuntimeError, match="retention has deleted it"):
        made.trainer.run()


def test_a_model_without_a_tokenizer_is_one_clear_line(tiny, tmp_path, bench):
    """And nothing is written."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(NoTokenizer, match="save_pretrained"):
        bench([], model=str(bare))
