"""docs/one-step.md is the step that the trainer makes."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from msgspec.structs import replace

from odradek.schemas import arrays
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.models import load_model
from tests.support.trainer.gradients import gradient_of, loss_of

pytestmark = pytest.mark.torch

PAGE = Path(__file__).resolve().parents[2] / "docs/one-step.md"


def off_policy(group, noise):
    """The group as another policy would have sampled it, so that the clip has work to do."""

    def moved(sequence):
        old = arrays.unpack_floats(sequence.logprobs)
        told = np.minimum(old + noise.normal(0, 0.3, len(old)), 0).astype(np.float32)
        return replace(sequence, logprobs=arrays.pack_floats(told))

    episodes = tuple(
        (pointer, replace(episode, sequences=tuple(map(moved, episode.sequences))))
        for pointer, episode in group.episodes
    )
    return EpisodeGroup(group.offset, group.batch, episodes)


def test_the_page_has_the_loss_and_the_gradient_of_the_real_step(groups, tiny, bench):
    """Within float32, off-policy, on groups whose samples are of different worth."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    page: dict = {}
    exec(compile(block, PAGE.name, "exec"), page)  # the page itself is what is tested
    noise = np.random.default_rng(0)
    varied = [group for group in groups if not group.batch.zero_variance][:2]
    varied = [off_policy(group, noise) for group in varied]
    real = bench([], rows_per_step=16, micro_tokens=300)
    rows = [row for group in varied for row in real.consumption.feed(group)]
    expected = loss_of(real.trainer, rows)

    model = load_model(tiny)
    found = page["step"](model, [[episode for _, episode in group.episodes] for group in varied])
    assert expected == pytest.approx(found, abs=1e-6)
    ours, real_gradient = gradient_of(model), gradient_of(real.trainer.model)
    assert 5e-6 * real_gradient.norm() > (ours - real_gradient).norm()
    assert torch.isfinite(ours).all()


def test_the_page_is_one_page():
    """At most sixty lines between the code's first and its last."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert 60 >= len(block.splitlines())
