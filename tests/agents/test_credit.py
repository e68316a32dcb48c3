"""The dispatcher's credit and its memory, as pure folds."""

from hypothesis import given
from hypothesis import strategies as st

from odradek.agents.dispatch.credit import Credit
from odradek.agents.dispatch.progress import WINDOW, TaskProgress, TaskState


def test_a_training_group_is_out_until_a_step_has_passed_its_batch():
    """Closing a batch frees nothing; the step behind it does."""
    credit = Credit(open_groups=1, open_evals=1)
    credit.sent("t1", "train")
    assert 0 == credit.free("train")
    assert [] == credit.batch(4, "t1")
    assert [] == credit.step(4)
    assert ["t1"] == credit.step(5)
    assert 1 == credit.free("train")


def test_a_step_may_be_heard_before_its_batch():
    """The two topics have no common order."""
    credit = Credit(open_groups=1, open_evals=1)
    credit.sent("t1", "train")
    credit.step(5)
    assert ["t1"] == credit.batch(4, "t1")


def test_evaluation_and_runs_without_a_trainer_are_paced_by_closed_batches():
    """Nothing waits for steps that never come."""
    credit = Credit(open_groups=1, open_evals=1, trainer=False)
    credit.sent("t1", "train")
    credit.sent("e1", "eval")
    assert ["t1"] == credit.batch(0, "t1")
    assert ["e1"] == credit.batch(1, "e1")
    assert ["e2"] == _with_trainer("e2")


def _with_trainer(task):
    credit = Credit(open_groups=1, open_evals=1)
    credit.sent(task, "eval")
    return credit.batch(0, task)


def test_batches_of_others_and_repeats_count_for_nothing():
    """Only the first batch of a group that is out moves its credit."""
    credit = Credit(open_groups=2, open_evals=1)
    assert [] == credit.batch(0, "stranger")
    credit.sent("t1", "train")
    credit.batch(3, "t1")
    assert [] == credit.batch(9, "t1")
    assert ["t1"] == credit.step(4)
    assert [] == credit.step(10)


@given(st.data())
def test_any_order_of_batches_and_steps_passes_the_same_groups(data):
    """What is out at the end depends on what was heard, not on when."""
    n = data.draw(st.integers(1, 8))
    position = data.draw(st.integers(0, n))
    heard = [("batch", offset) for offset in range(n)] + [
        ("step", at) for at in range(position + 1)
    ]
    credit = Credit(open_groups=n, open_evals=1)
    for number in range(n):
        credit.sent(f"t{number}", "train")
    passed = []
    for kind, at in data.draw(st.permutations(heard)):
        passed += credit.batch(at, f"t{at}") if kind == "batch" else credit.step(at)
    assert {f"t{number}" for number in range(position)} == set(passed)
    assert len(passed) == len(set(passed))
    assert n - position == credit.out("train")


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "skip", "sent", "done", "settle", "crash"]), st.integers(0, 9)
    ),
    max_size=60,
)


@given(steps, st.integers(0, 1000))
def test_marks_survive_any_crash(story, position):
    """Whoever begins with what was committed knows each task's standing; the model is a dict."""
    marks = TaskProgress(position)
    model: dict[int, TaskState] = {}
    for kind, number in story:
        open_ = [at for at, standing in model.items() if standing is not TaskState.DONE]
        if kind == "take":
            offset = marks.next
            model[offset] = marks.take(offset)
        elif kind == "skip":
            offset = marks.next + number
            for at in range(marks.next, offset):
                model[at] = TaskState.DONE
            model[offset] = marks.take(offset)
        elif kind in {"sent", "done"} and open_:
            at = open_[number % len(open_)]
            model[at] = TaskState[kind.upper()]
            marks.put(at, model[at])
        elif kind == "settle":
            marks.settle()
        elif kind == "crash":
            low, end, recorded = marks.low_water, marks.next, marks.metadata(7)
            marks = TaskProgress(low, recorded)
            assert 7 == marks.batches
            assert end - low == marks.recorded
            for at in range(low, end):
                assert model[at] is marks.take(at)
    marks.settle()
    expected = min(
        (at for at, standing in model.items() if standing is not TaskState.DONE), default=None
    )
    assert marks.low_water == (marks.next if expected is None else expected)


def test_the_metadata_of_a_full_window_fits_a_commit():
    """Kafka takes 4096 bytes; reading stops before more would be needed."""
    marks = TaskProgress(10**12)
    while not marks.full:
        marks.take(marks.next)
        marks.put(marks.next - 1, TaskState.SENT)
    assert WINDOW == marks.next - marks.low_water
    assert len(marks.metadata(10**12)) <= 4096


def test_metadata_of_others_is_no_memory():
    """An offset that was set by hand begins afresh."""
    assert 0 == TaskProgress(5, "by hand").recorded
    assert 0 == TaskProgress(5, "1;x;3;AAAA").recorded
    assert 0 == TaskProgress(5, "1;0;99;AA==").recorded
