"""Attention over a packed tree is attention over each row by itself."""

import pytest
import torch
from trl.experimental.async_grpo.packing import TreeRow

from odradek.trainer.bench import batch_of, measure, model_of
from odradek.trainer.step import attention

pytestmark = pytest.mark.torch


def packed_of(rows):
    """TRL's packing of rows that share beginnings."""
    tree = TreeRow()
    for row in rows:
        tree.add(
            {"input_ids": row.ids, "completion_mask": row.mask.astype("int64"),
             "old_log_probs": row.logprobs, "advantage": 1.0, "group_id": 0}
        )  # fmt: skip
    return tree.pack()


@pytest.mark.parametrize("kind", ["dense", "segments", "blocks"])
def test_a_trees_hidden_states_are_those_of_its_rows(kind):
    """For each of the three masks, to fp32 accuracy."""
    rows = batch_of(group=4, turns=2, prompt=20, sampled=5, between=7)
    model = model_of(32, 2, 64, "cpu", torch.float32)
    packed = packed_of(rows)
    tree = [packed[key] for key in ("tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k")]
    ends = attention.subtree_ends(*tree)
    mask = {
        "dense": lambda: attention.dense_mask(ends),
        "segments": lambda: attention.segments(*tree),
        "blocks": lambda: attention.dense_mask(ends),
    }[kind]()
    if kind == "blocks":  # FlexAttention's function, evaluated without a GPU
        at = torch.arange(len(ends))
        assert torch.equal(
            mask[0, 0], attention.mask_function(ends)(0, 0, at[:, None], at[None, :])
        )
    attention.register()
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        alone = torch.cat(
            [model.model(input_ids=torch.tensor(r.ids)[None]).last_hidden_state[0][
                torch.tensor(r.mask.nonzero()[0] - 1)] for r in rows]
        )  # fmt: skip
        model.set_attn_implementation(attention.NAME)
        together = model.model(
            input_ids=packed["input_ids"][None], position_ids=packed["position_ids"][None],
            use_cache=False, tree_mask=mask,
        ).last_hidden_state[0][packed["token_index"]]  # fmt: skip
    assert torch.allclose(alone, together, atol=2e-6)


def test_the_measure_has_the_keys_that_programs_rely_on():
    """A small one, for its shape."""
    found = measure(
        group=2, turns=2, prompt=8, sampled=2, between=3, hidden=32, layers=1, repeats=1
    )
    assert {"per_turn", "merged", "tree"} == set(found["tokens_per_s"])
    assert found["speedup"] > 0
    assert {"per_turn": 50, "merged": 30, "tree": 22} == found["forwarded_tokens"]
