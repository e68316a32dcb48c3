"""Tools that take text: what a model writes as arguments, and the text that an agent gets."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odradek.proxy.dialects.tools import freeform

from .test_chunkings import PLACES, cut

TEXT = st.text() | st.sampled_from(['"', "\\", "a\nb\t", "😀", "\\u0041", '"}', "{}", "\x7f"])
BROKEN = [
    ('{"input": "a", "other": 1}', "a"),
    ('{"other": 1, "input": "a"}', "a"),
    ('{"patch": "a"}', "a"),
    ('{"patch": 1}', '{"patch": 1}'),
    ('{"input": 5}', '{"input": 5}'),
    ('{"input": null}', '{"input": null}'),
    ('{"input": ["a"]}', '{"input": ["a"]}'),
    ('"a"', "a"),
    ("[1]", "[1]"),
    ("{}", ""),
    ("", ""),
    ("*** Begin Patch\n+a\n", "*** Begin Patch\n+a\n"),
    ('{"input": "print("a")"}', 'print("a")'),
    ('{"input": "say \\"a\\" or "b" now"\n}', 'say "a" or "b" now'),
    ('{"input": "a\nb\tc"}', "a\nb\tc"),
    ('{"input": "\\d+\\."}', "\\d+\\."),
    ('{"input": "\\ud83d"}', "\ufffd"),
    ('{"input": "\\ude00x"}', "\ufffdx"),
    ('{"input": "\\ud83d\\ud83d\\ude00"}', "\ufffd😀"),
    ('{"input": "\\u00zz"}', "\\u00zz"),
    ('{"input": "half', "half"),
    ('{"input": "half\\', "half"),
    ('{"input": "half\\u00', "half"),
    ('{"input": "half\\ud83d', "half"),
    ('{"input"', '{"input"'),
    ('{"input": "a"', "a"),
    (" " * 300 + '{"input": "a"}', "a"),
    ('{"inp\\u0075t": "a"}', "a"),
    ("{" * 2000, "{" * 2000),
]
"""Arguments that are not as they were asked for, and their text."""


def pieces(arguments, places):
    reader = freeform.Reader()
    return "".join(map(reader.feed, cut(arguments, places))) + reader.end()


@given(TEXT, PLACES, st.booleans(), st.sampled_from([None, 1]))
def test_a_text_comes_back_as_it_was_however_it_was_spelt_and_cut(text, places, ascii_only, indent):
    """Escapes cut in the middle, blanks between, characters beyond the basic plane."""
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only, indent=indent)
    assert text == freeform.read(arguments) == pieces(arguments, places)


@given(st.text(alphabet='{}"\\:input ud83e0\n,x') | st.text(), PLACES)
@example('{"input": "a" "b', [14])
def test_whatever_a_model_writes_is_read_the_same_in_all_pieces(arguments, places):
    """And is text that JSON can hold."""
    text = pieces(arguments, places)
    assert text == freeform.read(arguments)
    assert text == json.loads(msgspec.json.encode(text))


@pytest.mark.parametrize(("arguments", "text"), BROKEN, ids=[str(n) for n in range(len(BROKEN))])
def test_arguments_that_are_no_json_of_ours_lose_nothing(arguments, text):
    """Code with quotes that nobody escaped, other names, no JSON at all, a reply that was cut."""
    assert text == freeform.read(arguments) == pieces(arguments, range(0, 400, 1))


def test_most_of_a_text_is_told_before_it_ends():
    """Agents show what the model writes while it writes."""
    reader = freeform.Reader()
    assert ["", "ab", "c", ""] == [reader.feed(one) for one in ('{"input"', ': "ab', "c", '"')]


@pytest.mark.parametrize(
    ("form", "ending"),
    [
        (None, ""),
        ({"type": "text"}, ""),
        ({"type": "grammar", "syntax": "lark", "definition": "start: X"}, "Lark grammar:\nstart: X"),
        ({"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}},
         "regular expression:\na+"),
    ],
)  # fmt: skip
def test_a_grammar_stands_in_the_description(form, ending):
    """In the form of Responses and in that of chats: no engine holds an argument to it."""
    given_form = None if form is None else msgspec.convert(form, freeform.GrammarFormat)
    function = freeform.function("d", given_form)
    assert function["description"].startswith("d")
    assert function["description"].endswith(ending)
    assert ["input"] == function["parameters"]["required"]
