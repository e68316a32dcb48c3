"""Claims of tests: none is lost when tests are moved, renamed or rewritten."""

import tomllib

from tests.support.suite.claims import EXPLAINED, Claim, claims_at, claims_of, compare

BEFORE = [
    Claim("tests/a/test_a.py", "test_same", "The same words."),
    Claim("tests/a/test_a.py", "test_twice", "The same words."),
    Claim("tests/a/test_a.py", "test_named", "A claim about something."),
    Claim("tests/a/test_a.py", "test_more", "A turn stands before its end."),
    Claim(
        "tests/a/test_a.py", "test_nearly", "One request per sample, with ids and the extension."
    ),
    Claim("tests/a/test_a.py", "test_replaced", "Only the longest counts."),
    Claim("tests/a/test_a.py", "test_gone", "Nothing else says this."),
]
NOW = [
    Claim("tests/b/test_b.py", "test_moved", "The same words."),
    Claim("tests/b/test_b.py", "test_named", "Other words altogether."),
    Claim("tests/b/test_b.py", "test_other", "A turn stands before its end, and after its start."),
    Claim("tests/b/test_b.py", "test_new", "One request per sample, with ids and its extension."),
]


def test_a_claim_is_kept_reworded_explained_or_lost():
    """Equal words count once a test; a name, more words or nearly all of them are a counterpart."""
    result = compare(BEFORE, NOW, {"test_replaced"})
    assert ["test_same"] == [claim.test for claim in result.kept]
    assert ["test_named", "test_more", "test_nearly"] == [old.test for old, _ in result.reworded]
    assert ["test_replaced"] == [claim.test for claim in result.explained]
    assert ["test_twice", "test_gone"] == [claim.test for claim in result.lost]


def test_a_claim_is_a_docstring_in_one_line_or_else_the_name():
    """Helpers and fixtures claim nothing."""
    source = """
def test_one():
    '''A claim
    of two lines.'''

async def test_two_words(): ...

def helper():
    '''No claim.'''
"""
    assert ["A claim of two lines.", "two words"] == [
        claim.text for claim in claims_of("test_x.py", source)
    ]


def test_every_explanation_names_a_test_that_there_is():
    """What took a claim's place has not gone, too."""
    there = {f"{claim.file}::{claim.test}" for claim in claims_at(None)}
    rows = tomllib.loads(EXPLAINED.read_text())["explained"]
    assert set() == {row["now"] for row in rows.values()} - there
