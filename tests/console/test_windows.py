"""Windows: all of a thing in turn, and no answer too long."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.console.addresses import SHOWN, PageAddress, parse, row_of
from odradek.infra.app.console.windows import PART, drawn_size, parts, size_of, token_size, window
from odradek.infra.app.history.page import Target, drawing, environment
from odradek.infra.app.history.sections import Facts, Grid, Heading, Lead, Note, ShownTokens
from odradek.infra.app.history.shading import LEGENDS, SHADES, drawn_tokens, visible
from odradek.infra.app.history.views import TokensView
from odradek.infra.errors import PageRefused

words = st.text(max_size=30) | st.sampled_from(
    ["<&\"'>" * 9, "\u202e" * 9, "a/0/1 " * 40, "é" * 900]
)
cells = words | st.builds(Lead, words, st.sampled_from(SHOWN), words)
sections = (
    st.builds(Heading, words, words)
    | st.builds(Note, words, st.booleans())
    | st.builds(Facts, st.lists(st.tuples(words, cells), min_size=1, max_size=9).map(tuple))
    | st.integers(1, 4).flatmap(
        lambda n: st.builds(
            Grid,
            st.tuples(*[words] * n),
            st.lists(st.tuples(*[cells] * n), min_size=1, max_size=9).map(tuple),
            words,
        )
    )
)
DRAWN = environment().from_string(
    '{% import "sections.html.j2" as draw with context %}'
    "{% for kind, it in sections %}{{ draw.section(kind, it) }}{% endfor %}"
)


def html_of(section):
    """A section as it is drawn on a page."""

    def target(what, name):
        return Target(PageAddress(what=what, name=name).href)

    return DRAWN.render(drawing([section], target))


@settings(max_examples=30)
@given(section=sections)
def test_a_section_is_no_larger_than_its_size(section):
    """With its tags and links."""
    for part in parts([section]):
        assert len(html_of(part).encode()) <= size_of(part)


@settings(max_examples=30)
@given(listed=st.lists(sections, max_size=6))
def test_parts_are_small_and_hold_everything(listed):
    """A table goes on behind its part, a long value ends with its length."""
    made = list(parts(listed))
    rows = [row for one in listed if isinstance(one, Grid | Facts) for row in _rows(one)]
    kept = [row for one in made if isinstance(one, Grid | Facts) for row in _rows(one)]
    assert len(rows) == len(kept)
    assert all(size_of(part) <= PART + size_of(_alone(part)) for part in made)


def _rows(section):
    return section.rows if isinstance(section, Grid) else section.pairs


def _alone(part):
    """A part with its longest row alone."""
    if isinstance(part, Grid):
        return Grid(part.headings, (max(part.rows, key=lambda row: len(str(row))),), part.title)
    return part


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    budget=st.integers(1, 100),
    most=st.none() | st.integers(1, 9),
)
def test_windows_go_over_all_things_once(sizes, budget, most):
    """In order; each fits its budget, or holds one thing alone."""
    start, seen = 0, []
    while start < len(sizes):
        at = window(sizes, start, lambda n: sizes[n], budget=budget, most=most)
        assert (start, len(sizes)) == (at.start, at.total)
        taken = sizes[at.start : at.end]
        assert sum(taken) <= budget or len(taken) == 1
        assert most is None or len(taken) <= most
        seen += taken
        start = at.end
    assert sizes == seen


def test_a_window_behind_the_end_is_the_last_one():
    """And of nothing there is an empty one."""
    assert (2, 3) == (window("abc", 99, lambda _: 1).start, window("abc", 99, lambda _: 1).end)
    assert window("", 5, lambda _: 1).whole


@settings(max_examples=30)
@given(
    address=st.builds(
        PageAddress,
        what=st.sampled_from([what for what in SHOWN if what != "step"]),
        name=words.map(str.strip).filter(bool).filter(lambda text: len(text) < 900),
        run=words.filter(lambda text: 0 < len(text) < 250),
        start=st.integers(0, 10**15),
        shade=st.sampled_from(SHADES),
        step=st.integers(0, 10**9),
        raw=st.booleans(),
    )
)
def test_an_address_is_read_as_it_was_written(address):
    """Whatever is in a name; and it is ASCII."""
    parts = urlsplit(address.href)
    assert address.href.isascii()
    assert address == parse(parts.path[1:], dict(parse_qsl(parts.query)))


@pytest.mark.parametrize(
    ("what", "query", "says"),
    [
        ("nothing", {"name": "1"}, "there are step, batch"),
        ("step", {}, "say which step: its number"),
        ("step", {"name": "0"}, "counted from 1"),
        ("step", {"name": "one"}, "counted from 1"),
        ("row", {"name": " "}, "behind it /ROW"),
        ("turn", {"name": "x" * 2000}, "at most 1024"),
        ("turn", {"name": "x", "run": "r" * 300}, "at most 256"),
        ("turn", {"name": "x", "from": "-1"}, "from='-1' is no number"),
        ("turn", {"name": "x", "from": "9" * 16}, "is no number"),
        ("turn", {"name": "x", "by": "colour"}, "mask, logprob"),
    ],
)
def test_an_address_of_nothing_says_what_it_may_be(what, query, says):
    """In one line."""
    with pytest.raises(PageRefused, match=says):
        parse(what, query)


def test_a_row_is_named_by_its_batch_and_its_number():
    """Behind the batch's place."""
    assert ("rl.batches.v1/0/17", 3) == row_of("rl.batches.v1/0/17/3")
    with pytest.raises(PageRefused, match="ROW"):
        row_of("3")


def tokens_of(texts):
    """Tokens with these texts, half of them sampled."""
    n = len(texts)
    half = [i % 2 for i in range(n)]
    return TokensView(
        ids=tuple(range(n)), trained=tuple(half), sampled=tuple(half),
        logprobs=tuple(-float(i) if i % 2 else None for i in range(n)),
        versions=tuple(i if i % 2 else None for i in range(n)),
        temperatures=(None,) * n,
        advantages=tuple(i - 3.0 if i % 2 else None for i in range(n)),
        texts=tuple(texts),
    )  # fmt: skip


@settings(max_examples=30)
@given(texts=st.lists(words, min_size=1, max_size=9), shade=st.sampled_from(SHADES))
def test_a_token_is_no_larger_than_its_size_and_has_a_colour_of_the_legend(texts, shade):
    """By whatever it is coloured."""
    drawn = list(drawn_tokens(tokens_of(texts), shade))
    assert {token.kind for token in drawn} <= {entry.kind for entry in LEGENDS[shade]}
    bare = len(html_of(ShownTokens(tokens_of([])))) + 2
    for text, token in zip(texts, drawn, strict=True):
        alone = tokens_of([text])
        assert len(html_of(ShownTokens(alone)).encode()) - bare <= token_size(
            next(drawn_tokens(alone))
        )
        assert visible(text) == token.text


@settings(max_examples=40)
@given(text=st.text(st.characters(), max_size=20))
def test_visible_text_can_be_sent_and_read(text):
    """No half characters, no controls; what is visible stays as it is."""
    shown = visible(text)
    assert shown.encode().decode() == shown
    assert visible(shown) == shown
    assert drawn_size(text) >= len(shown.encode())
