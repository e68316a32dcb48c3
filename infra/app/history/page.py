"""Sections in HTML, by Jinja2: as a page that needs nothing beside itself, or as a part of others.

What agents and models wrote is text there: Jinja2 escapes whatever it is given, and characters that
show nothing stand as their numbers.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from odradek.infra.app.history.sections import (
    Cell,
    Facts,
    Grid,
    Heading,
    Lead,
    Note,
    Section,
    Shown,
    ShownTokens,
)
from odradek.infra.app.history.shading import LEGENDS, drawn_tokens, visible

if TYPE_CHECKING:
    from jinja2 import Environment

PLACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/\d{1,6}/\d{1,18}")
LINKS: Final = 16
"""Places in a text that are links; what comes behind them is text."""
FOLDER: Final = Path(__file__).parent
STYLE: Final = (FOLDER / "page.css").read_text()
KINDS: Final[dict[type, str]] = {
    Heading: "heading", Facts: "facts", Grid: "grid", Note: "note", ShownTokens: "tokens",
}  # fmt: skip


class Target(NamedTuple):
    """Where a page leads to for something, or what it says of it."""

    href: str = ""
    hint: str = ""


Targets = Callable[[Shown, str], Target]
"""What a page makes of something that can be shown, by its name."""


class CellPart(NamedTuple):
    """A stretch of a cell."""

    text: str
    href: str
    hint: str


def page_of(sections: Iterable[Section], title: str) -> str:
    """A page: each place leads to where it is shown, and each token says its numbers.

    What agents and models wrote is escaped; the page has no script and loads nothing.
    """
    from markupsafe import Markup

    listed = list(sections)
    here = {section.place for section in listed if isinstance(section, Heading) and section.place}
    here |= {name for one in listed if isinstance(one, Grid) for name in _row_places(one) if name}

    def targets(what: Shown, name: str) -> Target:
        if what != "record":
            return Target(hint=f"odradek show {what} {name}") if what != "row" else Target()
        if name in here:
            return Target(f"#{name}")
        topic, partition, offset = name.rsplit("/", 2)
        return Target(hint=f"odradek tail {topic} --since {offset}, partition {partition}")

    page = environment().get_template("page.html.j2")
    style = Markup(STYLE)  # noqa: S704 - ours, and no text of anybody's
    return page.render(
        title=visible(title),
        style=style,
        has_tokens=any(isinstance(one, ShownTokens) for one in listed),
        **drawing(listed, targets),
    )


def drawing(sections: Sequence[Section], targets: Targets) -> dict[str, Any]:
    """What `sections.html.j2` is given.

    Args:
        sections: What it draws.
        targets: Where the page leads to.
    """
    return {
        "sections": [(KINDS[type(section)], section) for section in sections],
        "parts": lambda cell: list(parts_of(cell, targets)),
        "drawn_tokens": drawn_tokens,
        "legend": LEGENDS["mask"],
    }


@cache
def environment(*folders: Path) -> "Environment":
    """Templates of these folders, and ours. Everything is escaped, and a wrong name an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*folders, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters["visible"] = visible
    made.globals["row_places"] = _row_places
    return made


def _row_places(grid: Grid) -> list[str]:
    """For each row of a table of samples the place that it shows, else ""."""
    of_samples = grid.headings[:1] == ("sample",)
    return [_place(row[3]) if of_samples else "" for row in grid.rows]


def _place(cell: Cell) -> str:
    return cell if isinstance(cell, str) and PLACE.fullmatch(cell) else ""


def parts_of(cell: Cell, targets: Targets) -> Iterator[CellPart]:
    """A cell with its links: a lead is one, and so is each place in a text."""
    if isinstance(cell, Lead):
        yield CellPart(visible(cell.text), *targets(cell.what, cell.name))
        return
    at = 0
    for match in islice(PLACE.finditer(cell), LINKS):
        if match.start() > at:
            yield CellPart(visible(cell[at : match.start()]), "", "")
        yield CellPart(match[0], *targets("record", match[0]))
        at = match.end()
    if at < len(cell):
        yield CellPart(visible(cell[at:]), "", "")
