"""What a turn's sampling means, over the spellings of every dialect and engine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.schemas import neutral_fields, sampling
from odradek.schemas.sampling import NEUTRAL, Sampling, alters, recorded, sampling_of
from tests.support.schemas.sampling_fields import BENT, WHOLE


@pytest.mark.parametrize("said", WHOLE, ids=str)
def test_what_leaves_the_distribution_whole(said):
    """Neutral values, in whatever type they come, and all that only says where a reply ends."""
    assert "" == sampling_of(said).altered_by


@pytest.mark.parametrize("said", BENT, ids=str)
def test_what_bends_or_cuts_the_distribution_is_named(said):
    """Each sampler of each engine; a name that no table holds counts as one."""
    bent = sampling_of({**NEUTRAL, "temperature": 1.0, **said})
    assert (next(iter(said)), False) == (bent.altered_by, bent.trainable)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0), (1.0, 1.0), (0.7, 0.7), ("0.7", 0.7), (True, 1.0), (2, 2.0), (0, 0.0),
        (False, 0.0), (-0.0, 0.0), (0.05, 0.05), (0.049, 0.049), (None, None),
    ],
)  # fmt: skip
def test_a_temperature_is_read_as_engines_read_it(value, expected):
    """Text and booleans are numbers to them; null is nothing said."""
    read = sampling_of({"temperature": value})
    assert (expected, "") == (read.temperature, read.altered_by)
    assert (expected is None or expected >= sampling.COLDEST) == read.trainable


@pytest.mark.parametrize(
    "value",
    [-1, -0.1, "warm", "", "nan", "inf", [], {}, [1], math.nan, math.inf, -math.inf, 10**400],
)
def test_a_temperature_that_is_none_is_no_temperature(value):
    """Nobody can divide by it."""
    assert Sampling(None, "temperature") == sampling_of({"temperature": value})


def test_a_turn_keeps_of_an_unknown_field_its_name_only():
    """What it carries may be a secret; that it was there is what a trainer must know."""
    assert recorded("api_key", "sk-1") is True
    assert recorded("messages", [1]) is None
    assert recorded("novel", False) is None
    assert {"json": {"a": 1}} == recorded("structured_outputs", {"json": {"a": 1}})


def test_the_tables_do_not_contradict_each_other():
    """A name has one meaning."""
    tables = (
        neutral_fields.PLAIN,
        neutral_fields.NOTED,
        sampling.LIMITED,
        sampling._NEUTRAL,
        sampling.WITHIN,
    )
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    assert NEUTRAL.keys() <= sampling.RECORDED
    assert not [name for name in NEUTRAL if alters(name, NEUTRAL)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    sorted(sampling.RECORDED | neutral_fields.PLAIN | sampling.WITHIN.keys())
) | st.text(max_size=9)


@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_whatever_a_record_holds_is_read(said):
    """No value of no field breaks a reader, and a temperature is one that can be divided by."""
    found = sampling_of(said)
    assert found.temperature is None or 0 <= found.temperature < math.inf
    assert not found.altered_by or found.altered_by in said
    for name, value in said.items():
        recorded(name, value)
