"""Sections on a terminal: tokens are coloured by whether they are trained on."""

from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from odradek.infra.app.history.sections import (
    Cell,
    Facts,
    Grid,
    Heading,
    Note,
    Section,
    ShownTokens,
)
from odradek.infra.app.history.views import TokensView
from odradek.infra.app.tables import ReadableTable

TRAINED: Final = "bold green"
SAMPLED: Final = "yellow"
CONTEXT: Final = "dim"
WRONG: Final = "red"
LEGEND: Final = Text.assemble(
    ("trained on", TRAINED), " · ", ("sampled, not trained on", SAMPLED), " · ",
    ("context", CONTEXT),
)  # fmt: skip


def rendered(sections: Iterable[Section], *, marked: bool) -> RenderableType:
    """Sections for a console.

    Args:
        sections: What to draw.
        marked: Put [brackets] around tokens that are trained on, for where there are no colours.
    """
    return Group(*(part for section in sections for part in _drawn(section, marked=marked)))


def _drawn(section: Section, *, marked: bool) -> Iterator[RenderableType]:
    match section:
        case Heading(text):
            yield Text()
            yield Text(text, style="bold")
        case Facts(pairs):
            yield ReadableTable(
                ("", ""), [(Text(name, CONTEXT), _plain(value)) for name, value in pairs]
            )
        case Grid(headings, rows, title):
            yield ReadableTable(headings, [tuple(map(_plain, row)) for row in rows], title)
        case Note(text, wrong):
            yield Text()
            yield Text(text, WRONG if wrong else "")
        case ShownTokens(tokens):
            yield _tokens(tokens, marked=marked)


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def _tokens(tokens: TokensView, *, marked: bool) -> Text:
    """Each token in its colour; ids where there is no tokenizer."""
    words = tokens.texts or tuple(f"{token} " for token in tokens.ids)
    text = Text()
    before = 0
    for word, trained, sampled in zip(words, tokens.trained, tokens.sampled, strict=True):
        if marked and trained != before:
            text.append("[" if trained else "]")
        text.append(word, TRAINED if trained else SAMPLED if sampled else CONTEXT)
        before = trained
    if marked and before:
        text.append("]")
    return text
