"""What scenarios of ACTS expect: operators, paths, conditions."""

import pytest

from .expectations import ABSENT, collected, holds, places, regress, wrong

TASK = {"task": {"id": "t", "artifacts": [{"parts": [{"text": "a"}, {"data": {"n": 1}}]}]}}


@pytest.mark.parametrize(
    ("assertion", "good", "bad"),
    [
        ({"type": "string"}, ["", "a"], [1, None, ABSENT]),
        ({"type": "number"}, [1, 0.5], [True, "1"]),
        ({"exists": True}, [None, 0], [ABSENT]),
        ({"absent": True}, [ABSENT], [None, ""]),
        ({"contains": "b"}, ["abc"], ["ac", 1, ABSENT]),
        ({"matches": "^a.c$"}, ["abc"], ["abcd"]),
        ({"gte": 2, "lt": 4}, [2, 3], [1, 4, "3", ABSENT]),
        ({"type": "array", "count": 1}, [[1]], [[], [1, 2], "a"]),
        (
            {"type": "array", "items": {"id": {"type": "string"}}},
            [[], [{"id": "a"}]],
            [[{"id": 1}]],
        ),
        ({"one_of": ["a", "b"]}, ["a", "b"], ["c", ABSENT]),
        ({"any_of": [{"absent": True}, {"type": "array", "count": 0}]}, [ABSENT, []], [[1]]),
        ({"not": {"contains": "b"}}, ["ac"], ["abc"]),
        ({"type": {"type": "string"}}, [{"type": "about:blank"}], ["about:blank", {}]),
        ({"a": [{"b": 1}]}, [{"a": [{"b": 1}, 2], "c": 3}], [{"a": []}, {"a": [{"b": 2}]}, {}]),
        (None, [None], [0, ABSENT]),
    ],
    ids=str,
)
def test_an_assertion_takes_what_is_right_and_names_what_is_wrong(assertion, good, bad):
    """A map of operators is told from one of fields by its words."""
    assert [""] * len(good) == [wrong(assertion, value) for value in good]
    assert all(wrong(assertion, value) for value in bad)


def test_a_path_leads_to_every_value_that_it_names():
    """By names, numbers and stars; none where there is nothing."""
    assert ["t"] == places("task.id", TASK)
    assert [{"text": "a"}, {"data": {"n": 1}}] == places("task.artifacts[*].parts[*]", TASK)
    assert [1] == places("task.artifacts[0].parts[1].data.n", TASK)
    assert [] == places("task.artifacts[1].parts[0]", TASK)


def test_a_condition_of_a_repetition_is_equal_unequal_or_among_some():
    """Its values are words without quotes."""
    status = {"status": {"state": "B"}}
    assert holds("status.state == B", status)
    assert holds("status.state != A", status)
    assert holds("status.state in [A, B]", status)
    assert not holds("status.state in [A, C]", status)
    assert not holds("status.state == B", {})


def test_a_collection_has_one_all_or_none_that_match():
    """At a path."""
    rule = {"path": "task.artifacts[*].parts[*]", "match": {"text": {"type": "string"}}}
    assert "" == collected({"any": rule}, TASK)
    assert collected({"all": rule}, TASK)
    assert collected({"none": rule}, TASK)


def test_states_do_not_go_back():
    """Nothing follows an end, and nothing but itself is followed by the first."""
    working, done = "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"
    assert "" == regress(["TASK_STATE_SUBMITTED", working, working, done])
    assert regress([working, done, working])
    assert regress([working, "TASK_STATE_SUBMITTED"])
