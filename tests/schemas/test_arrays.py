"""Arrays of token ids are compared as bytes."""

from hypothesis import given
from hypothesis import strategies as st

from odradek.schemas.arrays import common_prefix, pack_ids


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_the_common_prefix_is_the_longest_one(left, right):
    """As comparing id by id finds it."""
    expected = 0
    while expected < min(len(left), len(right)) and left[expected] == right[expected]:
        expected += 1
    assert expected == common_prefix(pack_ids(left), pack_ids(right))
