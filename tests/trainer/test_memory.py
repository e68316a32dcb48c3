"""Out of memory: the step goes on in smaller micro-batches with the same gradient."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odradek.trainer.feed.rows import Row
from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.step.gradient import FILE, StepGradient, keep, kept, out_of_memory
from odradek.trainer.step.packing import totals_of
from tests.support.trainer.gradients import compute_in_the_weights_type, gradient_of

pytestmark = pytest.mark.torch

MANY = 100_000
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def row_of(length, index=0, offset=0):
    """A row of which all tokens but the first are sampled."""
    ids = np.arange(length) + 1000 * index
    mask = np.arange(length) > 0
    return Row(ids, mask, -mask.astype(np.float32), 1.0, 1.0, 1, 1, offset, index, f"e{index}")


class Memory:
    """So many tokens fit; a gradient is the rows that it was computed from."""

    def __init__(self, room):
        self.room, self.gradient, self.totals = room, [], []

    def backward(self, rows, totals):
        self.totals.append(totals)
        self.gradient += [row.index for row in rows[: len(rows) // 2]]  # half of it, as torch does
        if sum(len(row.ids) for row in rows) > self.room:
            raise FULL
        self.gradient += [row.index for row in rows[len(rows) // 2 :]]

    def forget(self):
        self.gradient.clear()
        self.totals.clear()


@given(st.lists(st.integers(2, 30), min_size=1, max_size=12), st.integers(1, 80))
def test_a_step_is_computed_from_each_row_that_fits_exactly_once(lengths, room):
    """However little memory there is; the others are named, and the shares are of those that fit."""
    rows = [row_of(length, n) for n, length in enumerate(lengths)]
    memory = Memory(room)
    learned = []
    step = StepGradient(TokenBudget.of(MANY), memory.backward, memory.forget, learned.append)
    unfit = step.compute(rows)
    fitting = [row for row in rows if len(row.ids) <= room]
    assert [row.index for row in rows if len(row.ids) > room] == sorted(row.index for row in unfit)
    assert [row.index for row in fitting] == sorted(memory.gradient)
    assert {totals_of(fitting)} == set(memory.totals) or not fitting
    assert sorted(learned, key=lambda budget: -budget.learned) == learned
    assert not learned or step.budget == learned[-1]


def test_what_was_learned_is_not_tried_again():
    """The next step begins with it."""
    memory = Memory(40)
    step = StepGradient(TokenBudget.of(MANY), memory.backward, memory.forget)
    rows = [row_of(20, n) for n in range(4)]
    step.compute(rows)
    assert 40 == step.budget.learned
    attempts = len(memory.totals)
    memory.forget()
    step.compute(rows)
    assert attempts == len(memory.totals)


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        torch.OutOfMemoryError("HIP out of memory. Tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory\nmore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:20]}",
)
def test_no_memory_has_many_words(error):
    """Each of them is an event of the plan."""
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), RuntimeError(), ValueError("out of memory.")], ids=str
)
def test_another_error_is_none_of_memory(error):
    """It ends the trainer."""
    assert not out_of_memory(error)
    step = StepGradient(TokenBudget.of(9), fails(error), lambda: None)
    with pytest.raises(type(error)):
        step.compute([row_of(3)])


def fails(error):
    def backward(*_):
        raise error

    return backward


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"asked": 1}', '{"asked": "x"}', "null"])
def test_a_note_that_cannot_be_read_is_learned_anew(tmp_path, text):
    """Nothing depends on it."""
    if text is not None:
        (tmp_path / FILE).write_text(text)
    assert kept(tmp_path) is None


def test_a_start_goes_on_with_what_was_learned_unless_it_is_asked_for_something_else(tmp_path):
    """Whoever changes the setting wants it tried."""
    keep(tmp_path, TokenBudget(asked=100, learned=25))
    assert {"asked": 100, "learned": 25} == json.loads((tmp_path / FILE).read_bytes())
    assert 25 == TokenBudget.of(100, kept(tmp_path)).learned
    assert 90 == TokenBudget.of(90, kept(tmp_path)).learned


def step_rows(made, groups, count):
    """The first accepted rows of some groups."""
    return [row for group in groups for row in made.consumption.feed(group)][:count]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_any_split_has_the_gradient_of_one_pass(bench, groups, monkeypatch, dtype, bound):
    """By budget, and by memory that runs out in the middle of a pass, to what sums are rounded.

    Relatively, to 1e-15 in float64, and in float32 to 1.2e-6.
    """
    compute_in_the_weights_type(monkeypatch)
    whole = bench([], rows_per_step=16, micro_tokens=MANY, name="whole")
    rows = step_rows(whole, groups, 16)

    def gradient(trainer):
        trainer.model.to(dtype)
        trainer.training_step(trainer.model, rows)
        return gradient_of(trainer.model)

    expected = gradient(whole.trainer)
    assert 1 == len(whole.trainer._gradient.batches)
    for budget in (1, 150):
        split = bench([], rows_per_step=16, micro_tokens=budget, name=f"split{budget}").trainer
        assert (gradient(split) - expected).norm() < bound * expected.norm()
        assert 1 < len(split._gradient.batches)
    for nth in (1, 2):
        tight = bench([], rows_per_step=16, micro_tokens=150, name=f"tight{nth}").trainer
        runs_out(tight, nth)
        assert (gradient(tight) - expected).norm() < bound * expected.norm()
        assert tight._gradient.budget.learned < 150
        assert whole.trainer.measured.loss == pytest.approx(tight.measured.loss, rel=1e-6, abs=1e-9)
        assert tight._gradient.budget == kept(tight.settings.output_dir)


def runs_out(trainer, nth):
    """Let memory run out once, when the gradient of the nth micro-batch has been added."""
    backward, calls = trainer.accelerator.backward, []

    def tight(loss):
        backward(loss)
        calls.append(loss)
        if len(calls) == nth:
            raise FULL

    trainer.accelerator.backward = tight


def test_a_row_that_fits_nowhere_is_refused_and_the_run_is_one_that_never_saw_it(bench, groups):
    """The ledger names it; weights are those of steps without it."""
    small = bench(groups, max_steps=2, micro_tokens=1, name="small")
    longest = {}

    def tight(rows, totals, backward=small.trainer._gradient._backward):
        (row,) = rows
        if len(row.ids) == max(len(other.ids) for other in longest["rows"]):
            raise FULL
        backward(rows, totals)

    compute = small.trainer._gradient.compute

    def computed(rows):
        longest["rows"] = rows
        longest.setdefault("steps", []).append(rows)
        return compute(rows)

    small.trainer._gradient._backward = tight
    small.trainer._gradient.compute = computed
    assert 2 == small.trainer.run()
    entries = [step for step in small.announced.steps if step.optimized]
    for rows, entry in zip(longest["steps"], entries, strict=True):
        length = max(len(row.ids) for row in rows)
        unfit = {(row.offset, row.index) for row in rows if len(row.ids) == length}
        assert unfit == {(r.offset, r.row) for r in entry.refused if r.reason == "no_memory"}
        assert 16 - len(unfit) == entry.metrics["rows"] == sum(use.rows for use in entry.used)
    other = bench([], max_steps=2, micro_tokens=1, name="other").trainer
    other.create_optimizer_and_scheduler(2)
    for rows in longest["steps"]:
        length = max(len(row.ids) for row in rows)
        other.training_step(other.model, [row for row in rows if len(row.ids) < length])
        torch.nn.utils.clip_grad_norm_(other.model.parameters(), 1.0)
        other.optimizer.step()
        other.model.zero_grad()
    mine = dict(other.model.named_parameters())
    for name, value in small.weights().items():
        assert torch.allclose(value, mine[name], atol=1e-6)


def test_a_step_of_which_no_row_fits_moves_nothing(bench, groups):
    """It is skipped, all of its rows are named, and the next one is made."""
    made = bench(groups, max_steps=2, micro_tokens=1)
    before, calls = made.weights(), []

    def tight(rows, totals, backward=made.trainer._gradient._backward):
        calls.append(rows)
        if len(calls) <= 16:
            raise FULL
        backward(rows, totals)

    made.trainer._gradient._backward = tight
    made.trainer.run()
    first = next(step for step in made.announced.steps if step.skipped)
    assert 16 == sum(refusal.reason == "no_memory" for refusal in first.refused)
    assert () == first.used
    assert any(not torch.equal(value, before[name]) for name, value in made.weights().items())
