"""Tasks that would teach the wrong thing are known by their own fields, as are those that teach nothing."""

from decimal import Decimal

import numpy as np
import pytest

from odradek.schemas import codec
from odradek.schemas.events import ChildReward, Task
from odradek.schemas.worth import doubts, fault


def task(**fields):
    return Task(**{"task_id": "t", "agent": "a"} | fields)


FAULTS = [
    ({"rewards": {"cost": -1.0}}, "no_failure_reward", '"failure_reward": -1 '),
    ({"rewards": {"game": 1.0, "cost": -0.25}}, "no_failure_reward", '"failure_reward": -0.25 '),
    ({"rewards": {"a": -0.5, "b": -0.5, "c": 3}}, "no_failure_reward", '"failure_reward": -1 '),
    ({"rewards": {"cost": -1e-9}}, "no_failure_reward", "-1e-09"),
    ({"rewards": {"cost": np.float32(-2)}}, "no_failure_reward", "rewards.cost is -2"),
    ({"rewards": {"cost": Decimal("-0.1")}}, "no_failure_reward", "rewards.cost is -0.1"),
    ({"rewards": {"": 1.0}}, "bad_component", "0 characters"),
    ({"rewards": {"c" * 257: 1.0}}, "bad_component", "257 characters"),
    ({"rewards": {"": 1.0}, "purpose": "eval"}, "bad_component", "0 characters"),
    ({"rewards": {"a": -1e308, "b": -1e308}}, "bad_weight", "weights in rewards"),
    ({"rewards": {"a": 1e308, "b": 1e308}}, "bad_weight", "weights in rewards"),
    ({"rewards": {"a": 1e308, "b": -1e308}, "failure_reward": 0.0}, "bad_weight", "too large"),
    ({"rewards": {"a": 10**300, "b": 1}, "purpose": "eval"}, "bad_weight", "too large"),
    ({"rewards": {"a": -1e40}}, "bad_weight", "too large"),
    ({"children": {"b": ChildReward(own=1e40)}}, "bad_weight", "children.b"),
    ({"children": {"b": ChildReward(rewards={"": 1.0})}}, "bad_component", "children.b.rewards"),
]
"""(fields, reason, what the line holds)."""
FAULTLESS = [
    {},
    {"rewards": {}},
    {"rewards": {"game": 1.0, "brief": 0.1}},
    {"rewards": {"cost": -0.0}},
    {"children": {"b": ChildReward(own=np.float32(0.5), rewards={"truth": 1})}},
    {"rewards": {"cost": -1.0}, "failure_reward": -1.0},
    {"rewards": {"cost": -1.0}, "failure_reward": 0.0},
    {"rewards": {"cost": -1.0}, "failure_reward": np.float32(0)},
    {"rewards": {"cost": -1.0}, "purpose": "eval"},
    {"rewards": {"c" * 256: 1.0}},
]


@pytest.mark.parametrize(("fields", "reason", "says"), FAULTS)
def test_a_task_that_teaches_the_wrong_thing_is_known_with_what_to_add(fields, reason, says):
    """A crash would count 0, which is more than a completed run at a cost."""
    found = fault(task(**fields))
    assert reason == found.reason
    assert says in found.detail
    assert "\n" not in found.detail


@pytest.mark.parametrize("fields", FAULTLESS)
def test_a_task_whose_author_said_what_a_failure_counts_is_taken(fields):
    """Whatever that number is; and nothing is asked of evaluations and of plain rewards."""
    assert fault(task(**fields)) is None


@pytest.mark.parametrize("fields", [*FAULTLESS, *(fields for fields, _, _ in FAULTS)])
def test_the_answer_is_the_same_on_the_other_side_of_the_log(fields):
    """Also a failure_reward of 0 that was given is on the wire."""
    sent = task(**fields)
    assert fault(sent) == fault(codec.decode(codec.encode(sent), Task))


DOUBTS = [
    ({"group_size": 1}, "group_size is 1"),
    ({"rewards": {"game": 0.0}}, "all weights in rewards are 0"),
    ({"rewards": {"game": 0, "brief": -0.0}}, "all weights in rewards are 0"),
    ({"failure_reward": 1.0}, "a run that fails counts 1"),
    ({"rewards": {"game": 1, "brief": 0.1}, "failure_reward": 2}, "can count more than 1.1"),
    ({"rewards": {"cost": -1.0}, "failure_reward": 0.0}, "can count more than 0"),
    ({"sampling": {"temperature": 0}}, "sampling.temperature is 0"),
    ({"sampling": {"temperature": 0.01}}, "sampling.temperature is 0.01"),
    ({"sampling": {"seed": 0}}, "sampling.seed is set"),
    ({"sampling": {"temperature": "0.01"}}, "sampling.temperature is 0.01"),
    ({"sampling": {"temperature": False}}, "sampling.temperature is 0"),
    ({"sampling": {"temperature": -1}}, "sampling.temperature is no temperature"),
    ({"sampling": {"temperature": "hot"}}, "sampling.temperature is no temperature"),
    ({"sampling": {"temperature": "nan"}}, "sampling.temperature is no temperature"),
    ({"sampling": {"temperature": "inf"}}, "sampling.temperature is no temperature"),
    ({"sampling": {"temperature": [1]}}, "sampling.temperature is no temperature"),
    ({"sampling": {"temperature": 1e308}}, "sampling.temperature is 1e+308"),
    ({"sampling": {"temperature": 101}}, "sampling.temperature is 101"),
    *(
        ({"sampling": {name: value}}, f"sampling.{name}")
        for name, value in {
            "top_p": 0.9,
            "top_k": 20,
            "min_p": 0.1,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "repetition_penalty": 1.1,
            "logit_bias": {"5": 1},
            "response_format": {"type": "json_object"},
            "tool_choice": "required",
            "structured_outputs": {"regex": "a+"},
            "guided_json": {"type": "object"},
            "min_tokens": 5,
            "best_of": 4,
            "some_new_sampler": 0.5,
        }.items()
    ),
]
"""(fields, what the only doubt says)."""


@pytest.mark.parametrize(("fields", "says"), DOUBTS)
def test_a_training_task_that_may_teach_nothing_is_doubted_in_a_line(fields, says):
    """It may be meant, so it is taken."""
    (line,) = doubts(task(**fields))
    assert says in line
    assert fault(task(**fields)) is None


@pytest.mark.parametrize("fields", [fields for fields, _ in DOUBTS])
def test_an_evaluation_is_not_doubted(fields):
    """Greedy play alone is what evaluations are for."""
    assert [] == doubts(task(purpose="eval", **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rewards": {"game": 1.0, "cost": -0.1}, "failure_reward": -0.1},
        {"failure_reward": 0.5},
        {"sampling": {"temperature": 1.0, "seed": None}},
        {"sampling": {"temperature": 0.7, "max_tokens": 5, "top_p": 1, "top_k": -1}},
        {"sampling": {"stop": ["\n"], "reasoning_effort": "low", "tool_choice": "auto"}},
    ],
)
def test_a_task_that_teaches_is_not_doubted(fields):
    """No line without a reason."""
    assert [] == doubts(task(**fields))


def test_each_field_that_bends_what_is_sampled_has_its_line():
    """And the way out, which is the same for all of them."""
    lines = doubts(task(sampling={"top_p": 0.9, "temperature": 0.01, "min_p": 0.1}))
    assert ["sampling.temperature", "sampling.top_p", "sampling.min_p"] == [
        line.split()[0] for line in lines
    ]
    assert all("refused" in line and "leave it out" in line for line in lines[1:])


def test_what_is_advised_can_be_done():
    """The number in the line is one that a task can hold, and with it there is no fault."""
    for weights in ({"a": -1e29, "b": -1e29}, {"a": -1e-320}, {"a": -0.123456789}):
        found = fault(task(rewards=weights))
        advised = float(found.detail.partition('"failure_reward": ')[2].split()[0])
        assert fault(task(rewards=weights, failure_reward=advised)) is None
        assert advised <= sum(weights.values())
