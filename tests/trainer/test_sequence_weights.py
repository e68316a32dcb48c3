"""What a sample weighs that fell into several sequences: with `episode` as much as any other."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace as changed

from odradek.trainer.feed.cursor import Cursor, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import EpisodeGroup, rows_of
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.models import load_model
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
from tests.support.trainer.gradients import loss_of as step_loss_of
from tests.support.trainer.plain_losses import PlainRow, objective
from tests.support.trainer.played_groups import group_with_rewards

pytestmark = pytest.mark.torch

LOW, HIGH, LENGTH = 0.2, 0.28, 256


def mean(values):
    return sum(values) / len(values)


def plain(name, samples):
    """The loss of samples (advantage, [(log p, log q) of each sequence]), each with one vote.

    Written down as means over a sample's sequences, where the product multiplies by weights.
    """

    def values(worth, new, old):
        worth = torch.full_like(old, worth)
        row = PlainRow(new, old, old, old, old, worth)
        return objective(name, row, old, torch.ones_like(old), 0.0)[0]

    def sample_mean(of):
        return [mean([of(values(worth, new, old)) for new, old in runs]) for worth, runs in samples]

    if name in {"dr_grpo", "luspo"}:
        return mean(sample_mean(torch.sum)) / (LENGTH if name == "dr_grpo" else 1)
    if name in {"dapo", "bnpo", "cispo", "dppo"}:
        return sum(sample_mean(torch.sum)) / sum(sample_mean(len))
    return mean(sample_mean(torch.mean))


def samples_of(counts, seed=0):
    """Samples that fell into so many sequences each, off-policy."""
    random = torch.Generator().manual_seed(seed)
    samples = []
    for sample, count in enumerate(counts):
        runs = []
        for run in range(count):
            n = 1 + (3 * sample + 5 * run) % 7
            old = -torch.rand(n, generator=random)
            new = (old + 0.4 * torch.randn(n, generator=random)).requires_grad_()
            runs.append((new, old))
        samples.append(((-1.0) ** sample * (0.3 + sample), runs))
    return samples


def terms_of(samples, *, weighed=True):
    """The same as the product's terms, and the step that they make."""
    runs = [(worth, new, old, 1 / len(all_of)) for worth, all_of in samples for new, old in all_of]
    lengths = torch.tensor([len(new) for _, new, _, _ in runs])
    weights = torch.tensor([weight if weighed else 1.0 for *_, weight in runs])
    row = torch.repeat_interleave(torch.arange(len(runs)), lengths)
    terms = LossInputs(
        torch.cat([new for _, new, _, _ in runs]), torch.cat([old for _, _, old, _ in runs]),
        torch.tensor([worth for worth, *_ in runs])[row], row, len(runs), weights=weights,
    )  # fmt: skip
    return terms, StepTotals(float((weights * lengths).sum()), float(weights.sum()))


def loss_of(name, samples, **more):
    terms, whole = terms_of(samples, **more)
    return policy_loss(name, terms, whole, LossOptions(LOW, HIGH, fixed_length=LENGTH))


def gradient_of(loss, samples):
    leaves = [new for _, runs in samples for new, _ in runs]
    return torch.cat(torch.autograd.grad(loss, leaves, retain_graph=True))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 5), (3, 1, 2, 4), (7,)])
def test_each_sample_has_one_vote_in_every_loss_and_its_gradient(name, counts):
    """Against means of means in plain torch."""
    samples = samples_of(counts)
    expected, found = plain(name, samples), loss_of(name, samples)
    assert expected.item() == pytest.approx(found.item(), abs=1e-6)
    assert torch.allclose(gradient_of(expected, samples), gradient_of(found, samples), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_of_k_equal_sequences_is_one_of_one(name):
    """How often it fell apart changes nothing; each row weighing 1, it does."""
    (first, runs), (second, other) = samples_of((1, 1))
    one = [(first, runs), (second, other)]
    five = [(first, runs), (second, other * 5)]
    assert loss_of(name, one).item() == pytest.approx(loss_of(name, five).item(), abs=1e-6)
    assert abs(loss_of(name, one) - loss_of(name, five, weighed=False)) > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_where_each_sample_is_one_sequence_nothing_is_weighed(name):
    """Bit for bit what TRL is compared with."""
    samples = samples_of((1, 1, 1, 1))
    assert torch.equal(loss_of(name, samples), loss_of(name, samples, weighed=False))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_micro_batches_that_cut_an_episode_add_up_to_the_step(name, cut):
    """Weights are the episode's, not the micro-batch's."""
    samples = samples_of((2, 3, 1))
    terms, whole = terms_of(samples)
    shape = LossOptions(LOW, HIGH, fixed_length=LENGTH)
    parts = []
    for there in (terms.row < cut, terms.row >= cut):
        row = terms.row[there] - int(terms.row[there].min())
        n = int(row.max()) + 1
        begin = int(terms.row[there].min())
        part = LossInputs(
            terms.logprobs[there], terms.old_logprobs[there], terms.advantages[there], row, n,
            weights=terms.weights[begin : begin + n],
        )  # fmt: skip
        parts.append(policy_loss(name, part, whole, shape))
    together = policy_loss(name, terms, whole, shape)
    assert together.item() == pytest.approx(sum(parts).item(), rel=1e-5, abs=1e-6)


def fallen_apart(group, counts):
    """The group, whose samples have so many sequences: their own, and those of the next ones."""
    of_all = [episode.sequences[0] for _, episode in group.episodes]
    pairs = [
        (pointer, changed(episode, sequences=tuple((of_all[n:] + of_all[:n])[:count])))
        for n, ((pointer, episode), count) in enumerate(zip(group.episodes, counts, strict=True))
    ]
    return EpisodeGroup(group.offset, group.batch, tuple(pairs))


def test_a_group_is_centred_however_its_samples_fell_apart():
    """Four wins of one sequence, four losses of five: the losers no longer outvote the winners."""
    group = fallen_apart(group_with_rewards(0, [1.0] * 4 + [0.0] * 4), [1] * 4 + [5] * 4)
    by_row = rows_of(group, weigh="row")
    by_episode = rows_of(group, weigh="episode")
    assert -14.96 == pytest.approx(sum(row.weight * row.advantage for row in by_row), abs=0.01)
    assert 0 == pytest.approx(sum(row.weight * row.advantage for row in by_episode), abs=1e-6)
    totals: dict[str, float] = {}
    for row in by_episode:
        totals[row.episode_id] = totals.get(row.episode_id, 0) + row.weight
    assert [1.0] * 8 == pytest.approx(list(totals.values()))
    assert {1.0} == {row.weight for row in by_row}


def test_what_is_refused_of_a_sample_and_where_a_run_goes_on_change_no_weight():
    """Weights are counted before refusals and before a position, as advantages are."""
    group = fallen_apart(group_with_rewards(0, [1.0, 0.0]), [2, 2])
    told = np.array([-9999.0, -0.1], dtype=np.float32).tobytes()
    (pointer, episode), other = group.episodes
    spoiled = changed(episode, sequences=(
        changed(episode.sequences[0], logprobs=told), episode.sequences[1]
    ))  # fmt: skip
    rules = RowRules(rows_per_step=1)
    rows = Cursor(rules, Lineage()).feed(EpisodeGroup(0, group.batch, ((pointer, spoiled), other)))
    assert [0.5, 0.5, 0.5] == [row.weight for row in rows]
    rest = Cursor(rules, Lineage(), Position(0, 3, 3)).feed(group)
    assert [(3, 0.5)] == [(row.index, row.weight) for row in rest]


def test_the_default_is_an_episode():
    """And what is set reaches the rules."""
    assert "episode" == TrainerSettings().rules.weigh == RowRules().weigh
    assert "row" == TrainerSettings(weigh="row").rules.weigh


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo", "gspo", "cispo"])
@pytest.mark.parametrize("weigh", ["episode", "row"])
def test_a_whole_step_of_the_packed_trainer_weighs_like_the_plain_line(
    groups, tiny, bench, name, weigh
):
    """Loss within 1e-6 and gradient within 5e-6, relatively, through packing and micro-batches."""
    varied = [group for group in groups if not group.batch.zero_variance][:2]
    counts = [1, 3, 1, 2, 1, 1, 2, 1]
    ours = bench([], rows_per_step=24, micro_tokens=200, loss=name, weigh=weigh)
    rows = [row for group in varied for row in ours.consumption.feed(fallen_apart(group, counts))]
    noise = np.random.default_rng(0)
    for row in rows:
        row.logprobs[row.mask] += noise.normal(0, 0.3, row.sampled).astype(np.float32)
    assert 24 == len(rows)

    model = load_model(tiny)
    samples: dict[str, tuple[float, list]] = {}
    for number, row in enumerate(rows):
        logits = model(input_ids=torch.tensor(row.ids)[None]).logits[0, :-1]
        told = logits.log_softmax(-1).gather(1, torch.tensor(row.ids)[1:, None])[:, 0]
        there = torch.tensor(row.mask[1:])
        key = row.episode_id if weigh == "episode" else f"{row.episode_id}/{number}"
        samples.setdefault(key, (row.advantage, []))[1].append(
            (told[there], torch.tensor(row.logprobs)[1:][there])
        )
    expected = plain(name, list(samples.values()))
    expected.backward()

    trainer = ours.trainer
    total = step_loss_of(trainer, rows)
    mine, its = (
        torch.cat([p.grad.flatten() for _, p in sorted(one.named_parameters())])
        for one in (trainer.model, model)
    )
    assert expected.item() == pytest.approx(total, abs=1e-6)
    assert (mine - its).norm() / its.norm() < 5e-6
