"""How much of a long thing one answer holds. Pure.

No answer is above `MOST` bytes, whatever it shows. A page is a list of parts, a row one of tokens,
and JSON one of characters. An answer holds those from one on, for as long as their sizes in HTML
fit. Sizes are bounds from above, counted from the text alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

import msgspec
from markupsafe import escape
from msgspec import Struct

from odradek.infra.app.history.page import LINKS, PLACE
from odradek.infra.app.history.sections import (
    Cell,
    Facts,
    Grid,
    Heading,
    Lead,
    Note,
    Section,
    ShownTokens,
)
from odradek.infra.app.history.shading import DrawnToken, visible

MOST: Final = 200_000
"""Bytes of an answer."""
BUDGET: Final = 150_000
"""Bytes of what is windowed in it: the rest is for what stands around."""
PART: Final = 20_000
"""Bytes of a part, about: a table goes on in another one behind that."""
LONGEST: Final = 4_000
"""Characters of a value on a page; all of them are in its JSON."""
LONGEST_CELL: Final = 500
"""Characters of a cell of a table."""
TOKENS: Final = 1_000
"""Tokens of an answer."""
CHARACTERS: Final = 25_000
"""Characters of JSON in an answer."""
TAG: Final = 120
"""Bytes of the tags around a cell or a row, about."""

Thing = TypeVar("Thing")


class WindowPosition(Struct, frozen=True):
    """Things [start, end) of `total`."""

    start: int
    end: int
    total: int

    @property
    def whole(self) -> bool:
        """Whether it holds all there is."""
        return self.start == 0 and self.end >= self.total


def fitting(sizes: Iterable[int], *, budget: int = BUDGET, most: int | None = None) -> int:
    """How many things fit, from the first on; one does in any case."""
    count = taken = 0
    for size in sizes:
        if count and (taken + size > budget or count == most):
            break
        count, taken = count + 1, taken + size
    return count


def window(
    things: Sequence[object],
    start: int,
    size: Callable[[int], int],
    *,
    budget: int = BUDGET,
    most: int | None = None,
) -> WindowPosition:
    """The window that begins at `start`; behind the end it is that of the last thing.

    Args:
        things: All of them.
        start: The first.
        size: Bytes of the thing with a number, at most.
        budget: Bytes in all.
        most: Things in all.
    """
    start = max(0, min(start, len(things) - 1))
    count = fitting((size(n) for n in range(start, len(things))), budget=budget, most=most)
    return WindowPosition(start, start + count, len(things))


def parts(sections: Iterable[Section]) -> Iterator[Section]:
    """Sections with long values cut and long tables in several, so that each is of a small size."""
    for section in sections:
        match section:
            case Heading(text, place):
                yield Heading(cut(text), place)
            case Note(text, wrong):
                yield Note(cut(text), wrong)
            case Facts(pairs):
                short = [(cut(name), _cut_cell(value)) for name, value in pairs]
                for group in _split(short, lambda pair: _cell_size(pair[0]) + _cell_size(pair[1])):
                    yield Facts(tuple(group))
            case Grid(headings, rows, title):
                cells = [tuple(_cut_cell(cell, LONGEST_CELL) for cell in row) for row in rows]
                for n, rest in enumerate(_split(cells, lambda row: sum(map(_cell_size, row)))):
                    name = title and (f"{title} (continued)" if n else title)
                    yield Grid(headings, tuple(rest), name)
            case ShownTokens():
                yield section


def _split(things: Sequence[Thing], size: Callable[[Thing], int]) -> Iterator[Sequence[Thing]]:
    while things:
        count = fitting(map(size, things), budget=PART)
        yield things[:count]
        things = things[count:]


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, without its end where it is too long; then it says how long it is."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text)} characters)"


def _cut_cell(cell: Cell, longest: int = LONGEST) -> Cell:
    if isinstance(cell, Lead):
        return msgspec.structs.replace(cell, text=cut(cell.text, longest))
    return cut(cell, longest)


def _cell_size(cell: Cell, link: int = TAG) -> int:
    """Bytes of a cell with its tags and links, at most.

    Args:
        cell: Any.
        link: Bytes of a link beside its name.
    """
    if isinstance(cell, Lead):
        return TAG + link + drawn_size(cell.text) + 3 * len(cell.name.encode(errors="replace"))
    found = islice(PLACE.finditer(cell), LINKS)
    return TAG + drawn_size(cell) + sum(link + 2 * len(match[0]) for match in found)


def drawn_size(text: str) -> int:
    """Bytes of a text in HTML."""
    return len(str(escape(visible(text))).encode())


def size_of(section: Section, link: int = TAG) -> int:
    """Bytes of a section in HTML, at most; its tokens apart. See `_cell_size`."""
    match section:
        case Heading(text, place):
            return TAG + drawn_size(text) + drawn_size(place)
        case Note(text):
            return TAG + _cell_size(text, link)
        case Facts(pairs):
            cells = [cell for pair in pairs for cell in pair]
            return TAG * (1 + len(pairs)) + sum(_cell_size(cell, link) for cell in cells)
        case Grid(headings, rows, title):
            head = drawn_size(title) + sum(_cell_size(name, 0) for name in headings)
            cells = [cell for row in rows for cell in row]
            inner = sum(_cell_size(cell, link) for cell in cells)
            return TAG * (2 + len(rows)) + head + inner
        case ShownTokens():
            return 0


def token_size(token: DrawnToken) -> int:
    """Bytes of a token in HTML, at most."""
    return TAG // 3 + drawn_size(token.text) + drawn_size(token.hint)
