"""What engines compute differently where weights travel in bfloat16."""

import pytest
import torch
from safetensors.torch import load_file

from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.models import load_model
from odradek.trainer.step.precision import sent
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("name", "cpu", "expected"),
    [
        ("auto", True, None),
        ("auto", False, torch.bfloat16),
        ("float32", False, None),
        ("bfloat16", True, torch.bfloat16),
    ],
)
def test_weights_are_sent_as_the_engine_computes(name, cpu, expected):
    """Unless a person says otherwise."""
    assert expected is sent(name, cpu=cpu)


@torch.no_grad()
def logprobs(model, row):
    """Of a row's sampled tokens."""
    ids = torch.tensor(row.ids)
    scores = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    return scores.gather(1, ids[1:, None])[torch.tensor(row.mask[1:]), 0]


def test_an_engine_of_float32_computes_something_else_with_weights_of_bfloat16(
    tiny, groups, tmp_path
):
    """Mean k3 of 1e-7 to 1e-4; one of bfloat16 gets the very numbers that it would have rounded to."""
    exact, rounded = load_model(tiny), load_model(tiny)
    transfer = DirectoryTransfer(tmp_path, Engines(()), config=None, keep=1, dtype=torch.bfloat16)
    transfer.version = 1
    transfer.send_weights(exact.named_parameters())
    written = load_file(transfer.folder / WEIGHTS)
    for name, weights in rounded.named_parameters():
        assert torch.equal(weights.to(torch.bfloat16), written[name])
        weights.data.copy_(written[name])
    ratios = torch.cat(
        [logprobs(rounded, row) - logprobs(exact, row) for g in groups[:8] for row in rows_of(g)]
    ).double()
    k3 = float((ratios.exp() - 1 - ratios).mean())
    assert 1e-7 < k3 < 1e-4
