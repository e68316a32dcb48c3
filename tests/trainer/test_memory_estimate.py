"""The estimate of memory: what it says of known sizes, and what it advises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.trainer.plan.memory import StepMemory

GB = 10**9
SMALL = StepMemory(trained=600_000_000, frozen=0, layers=28, hidden=1024, width=2)
"""Qwen3-0.6B."""
sizes = st.builds(
    StepMemory,
    trained=st.integers(1, 10**10), frozen=st.integers(0, 10**10), layers=st.integers(1, 90),
    hidden=st.integers(1, 9000), width=st.sampled_from([2, 4]), checkpointed=st.integers(0, 9),
    optimizer=st.sampled_from(["adamw", "adamw_8bit"]),
)  # fmt: skip


def test_what_a_model_of_0_6_b_takes():
    """16 bytes a parameter, and 34 a token, hidden unit and layer."""
    assert 9.6 * GB == SMALL.standing
    assert 28 * 34 * 1024 == SMALL.by_token
    assert pytest.approx((72 * GB - 9.6 * GB) / SMALL.by_token, abs=1) == SMALL.fitting(80 * GB)


@given(sizes, st.integers(1, 200).map(lambda n: n * GB))
def test_activations_that_are_computed_twice_leave_room_for_more_tokens(size, room):
    """The more often, the more; and no estimate exceeds the card."""
    every, none = (StepMemory(**{**vars(size), "checkpointed": n}) for n in (1, 0))
    if size.layers > 2:
        assert every.by_token < none.by_token
    assert every.fitting(room) >= size.fitting(room) or size.layers <= 2
    assert size.fitting(room) * size.by_token + size.standing <= room or not size.fitting(room)


@pytest.mark.parametrize(
    ("size", "room", "asked", "says", "says_not"),
    [
        (SMALL, 80, 16_384, "and micro_tokens is 16,384", "halved"),
        (SMALL, 12, 16_384, "gradient_checkpointing = 1", "precision"),
        (StepMemory(6 * 10**8, 0, 28, 1024, 4, 1), 12, 99_999, "precision = bfloat16", "_check"),
        (SMALL, 9, 16_384, "do not fit into 9 GB: a smaller model; or optimizer", "kl = 0"),
        (StepMemory(6 * 10**8, 6 * 10**8, 28, 1024, 2), 9, 1, "kl = 0 and tis = 0", "halved"),
    ],
)
def test_the_line_says_what_fits_and_what_to_change(size, room, asked, says, says_not):
    """And advises nothing that is done already."""
    line = size.line(room * GB, asked)
    assert says in line
    assert says_not not in line


@pytest.mark.torch
def test_a_trainer_knows_the_sizes_of_its_model(bench):
    """The tiny one's, with a reference; it says nothing on a CPU, where nothing is scarce."""
    from odradek.trainer.step.model_support import step_memory

    made = bench([], kl=0.1, gradient_checkpointing=2)
    model = made.trainer.model
    count = sum(value.numel() for value in made.weights().values())
    expected = StepMemory(count, count, 2, 64, 2, 2, "adamw")
    assert expected == step_memory(model, made.settings, "bfloat16")
