"""Numbers that people hand us: what has a float in it counts, and text does not."""

import msgspec
import numpy as np
import pytest

from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Reward, Task, Timeouts, raw
from odradek.schemas.numbers import number
from tests.support.schemas.number_inputs import NO_NUMBERS, NOT_FINITE, NUMBERS, shown


@pytest.mark.parametrize(("given", "value"), NUMBERS, ids=shown)
def test_what_has_a_float_in_it_is_a_number(given, value):
    """Of Python, of numpy, of other libraries, of somebody's own."""
    found = number(given)
    assert value == found
    assert float is type(found)


@pytest.mark.parametrize("given", NO_NUMBERS, ids=shown)
def test_what_is_none_is_refused_by_its_type(given):
    """The error names what it is of and the type, and never quotes the value."""
    with pytest.raises(TypeError, match=rf"score is a {type(given).__name__}.*, not a number"):
        number(given, "score")


@pytest.mark.parametrize("given", NOT_FINITE, ids=shown)
def test_what_no_float_can_hold_is_refused(given):
    """Neither infinities nor numbers beyond a float: nothing can be compared with them."""
    with pytest.raises(ValueError, match=r"score is not finite|score is too large"):
        number(given, "score")


@pytest.mark.torch
def test_a_tensor_of_a_single_element_is_a_number():
    """Whatever its shape, its type and its gradient; of several, of none or complex it is none."""
    torch = pytest.importorskip("torch")
    for given in (
        torch.tensor(0.5),
        torch.tensor([0.5]),
        torch.tensor(0.5, dtype=torch.bfloat16),
        torch.tensor(0.5, requires_grad=True),
        torch.nn.Parameter(torch.tensor(0.5)),
    ):
        assert 0.5 == number(given)
    assert 1.0 == number(torch.tensor(True))
    for given in (
        torch.zeros(2),
        torch.zeros(0),
        torch.tensor(1 + 0j),
        torch.empty((), device="meta"),
    ):
        with pytest.raises(TypeError, match=r"is a Tensor.*, not a number"):
            number(given)
    with pytest.raises(ValueError, match="not finite"):
        number(torch.tensor(float("nan")))


def reward(value) -> Reward:
    return Reward(episode_id="e", component="game", value=value, source="/people/ada")


@pytest.mark.parametrize(("given", "value"), NUMBERS, ids=shown)
def test_events_that_people_make_hold_any_number(given, value):
    """A reward's value; a task's weights, failure reward and deadlines: readers see JSON numbers."""
    assert value == codec.decode(codec.encode(reward(given)), Reward).value
    seconds = abs(value)
    task = Task(
        task_id="t",
        agent="hilo",
        rewards={"game": given, "brief": 1},
        failure_reward=given,
        timeouts=Timeouts(attempt_s=given if seconds == value else seconds),
    )
    found = codec.decode(codec.encode(task), Task)
    assert {"game": value, "brief": 1.0} == found.rewards
    assert (value, seconds) == (found.failure_reward, found.timeouts.attempt_s)


@pytest.mark.parametrize("given", [*NO_NUMBERS, *NOT_FINITE], ids=shown)
def test_events_that_people_make_hold_nothing_else(given):
    """What no reader would accept is refused before it is sent, with the field's name."""
    for name, event in {
        "value": reward(given),
        "rewards.game": Task(task_id="t", agent="hilo", rewards={"game": given}),
        "failure_reward": Task(task_id="t", agent="hilo", failure_reward=given),
        "timeouts.attempt_s": Task(task_id="t", agent="hilo", timeouts=Timeouts(attempt_s=given)),
    }.items():
        if name == "failure_reward" and given is None:
            continue  # stands for none given
        with pytest.raises(InvalidRecord, match=name):
            codec.encode(event)


def test_numbers_of_other_libraries_stand_anywhere_in_a_task():
    """Whole ones stay whole, booleans stay booleans."""
    task = Task(
        task_id="t",
        agent="hilo",
        group_size=np.int64(4),
        input=raw({"secret": np.int64(7), "hints": [np.bool_(False), np.float32(0.5)]}),
        sampling={
            "temperature": np.float32(0.5),
            "max_tokens": np.int64(5),
            "echo": np.bool_(True),
        },
    )
    found = codec.decode(codec.encode(task), Task)
    assert 4 == found.group_size
    assert {"secret": 7, "hints": [False, 0.5]} == msgspec.json.decode(found.input)
    assert {"temperature": 0.5, "max_tokens": 5, "echo": True} == found.sampling


def test_an_event_of_plain_numbers_keeps_its_bytes():
    """Nobody's digests or signatures change."""
    task = Task(task_id="t", agent="hilo", rewards={"game": 1}, failure_reward=-1)
    assert msgspec.json.encode(task) == codec.encode(task)
    assert msgspec.json.encode(reward(1)) == codec.encode(reward(1))


def test_what_no_json_can_hold_is_refused_by_its_type():
    """An object in a task's sampling."""
    with pytest.raises(InvalidRecord, match="object"):
        codec.encode(Task(task_id="t", agent="hilo", sampling={"seed": object()}))
