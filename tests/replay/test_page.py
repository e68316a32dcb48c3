"""Views drawn: on a terminal and as a page."""

from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from odradek.infra.app.history.page import PLACE, page_of
from odradek.infra.app.history.sections import Facts, Grid, Heading, Note, ShownTokens
from odradek.infra.app.history.shading import visible
from odradek.infra.app.history.text import rendered
from odradek.infra.app.history.tokens import texts_of
from odradek.infra.app.history.views import TokensView
from odradek.infra.errors import ProjectError

TOKENS = TokensView(
    ids=(1, 2, 3, 4),
    trained=(0, 1, 1, 0),
    sampled=(0, 1, 1, 1),
    logprobs=(None, -0.5, -1.25, -2.0),
    versions=(None, 3, 3, 4),
    temperatures=(None, 1.0, 1.0, 0.0),
    advantages=(None, 0.5, 0.5, None),
    texts=("<s>", "a", "b", "c"),
)
hostile = st.sampled_from(["<script>x</script>", 'a" onload="x', "</pre>", "&lt;", "a/0/1", "ä\n"])


class Read(HTMLParser):
    """Texts and tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.ids, self.links, self.titles = [], set(), [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        self.ids += [values["id"]] if values.get("id") else []
        self.links += [values["href"]] if "href" in values else []
        self.titles += [values["title"]] if "title" in values else []

    def handle_data(self, data):
        self.words.append(data)


@given(words=st.lists(st.text(max_size=20) | hostile, min_size=5, max_size=5))
def test_what_agents_and_models_wrote_is_text_on_the_page(words):
    """Whatever it looks like: no tag of theirs, no script, nothing is loaded, nothing hidden."""
    name, value, cell, note, token = words
    tokens = msgspec.structs.replace(TOKENS, texts=(token, "a", "b", "c"))
    page = Read(
        page_of(
            [Heading(name, "rl.batches.v1/0/1"), Facts(((name, value),)),
             Grid(("x",), ((cell,),)), Note(note, wrong=True), ShownTokens(tokens)],
            name,
        )
    )  # fmt: skip
    text = "".join(page.words)
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)
    for word in words:
        assert visible(word) in text


def test_a_place_leads_to_where_the_page_shows_it():
    """Else it names the verb that reads it."""
    page = Read(
        page_of(
            [
                Heading("batch", "rl.batches.v1/0/7"),
                Facts((("at", "rl.batches.v1/0/7"), ("from", "rl.steps.v1/0/3"))),
                Grid(
                    ("sample", "reward", "advantage", "at"),
                    (("0", "1", "+1", "rl.episodes.v1/2/5"), ("1", "-", "-", "-")),
                ),
                Note("row 0 of rl.episodes.v1/2/5"),
            ],
            "batch",
        )
    )
    assert ["#rl.batches.v1/0/7", "#rl.episodes.v1/2/5", "#rl.episodes.v1/2/5"] == page.links
    assert {link[1:] for link in page.links} == set(page.ids)
    assert ["odradek tail rl.steps.v1 --since 3, partition 0"] == page.titles


def test_a_token_says_its_numbers():
    """Id, log probability, version, temperature and advantage; a context token its id."""
    page = Read(page_of([ShownTokens(TOKENS)], "x"))
    assert [
        "0: id 1",
        "1: id 2, log p -0.5, version 3, temperature 1, advantage 0.5",
        "2: id 3, log p -1.25, version 3, temperature 1, advantage 0.5",
        "3: id 4, log p -2, version 4, temperature 0",
    ] == page.titles


@pytest.mark.parametrize(
    ("marked", "line"), [(True, "<s>[ab]c"), (False, "<s>abc")], ids=["plain", "coloured"]
)
def test_tokens_that_are_trained_on_are_marked_where_there_are_no_colours(marked, line):
    """By brackets; where there are colours, text stays as it was."""
    console = Console(width=40)
    with console.capture() as captured:
        console.print(rendered([ShownTokens(TOKENS)], marked=marked))
    assert line == captured.get().strip()


def test_places_are_recognised():
    """A topic, a partition and an offset; a path or a date is none."""
    assert PLACE.fullmatch("rl.episodes.v1/11/123456789")
    assert not PLACE.fullmatch("2026-01-31")
    assert not PLACE.fullmatch("a/b/3")


def test_a_folder_without_a_tokenizer_is_a_mistake_only_where_it_was_named(tmp_path):
    """By default ids are shown."""
    assert () == texts_of(str(tmp_path), wanted=False)([1, 2])
    with pytest.raises(ProjectError, match=r"holds no tokenizer\.json"):
        texts_of(str(tmp_path), wanted=True)


def test_colours_are_explained_where_there_are_tokens():
    """A page without any has no key to them."""
    assert "trained on" in page_of([ShownTokens(TOKENS)], "x")
    assert "trained on" not in page_of([Note("nothing")], "x")
