"""Pages as HTML, by Jinja2: `templates/` has their forms, `history` what is drawn of a view."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from odradek.infra.app.console.addresses import PageAddress
from odradek.infra.app.console.run.addresses import ACROSS, MOST_RUNS, RunAddress
from odradek.infra.app.console.run.views import RunPage
from odradek.infra.app.console.views import PageView
from odradek.infra.app.console.windows import fitting
from odradek.infra.app.history.page import STYLE as HISTORY_STYLE
from odradek.infra.app.history.page import Target, drawing, environment
from odradek.infra.app.history.sections import Section, Shown
from odradek.infra.app.history.shading import LEGENDS, SHADES, visible

FOLDER: Final = Path(__file__).parent / "templates"
STYLE: Final = HISTORY_STYLE + (FOLDER / "console.css").read_text()
SMOOTHS: Final = (1, 4, 16, 64)
"""Steps of a moving mean that a page offers."""
OTHERS: Final = 10_000
"""Bytes of links to runs that a page offers to lay over its own."""
FORMS: Final = (
    ("step", "step", "number"),
    ("episode", "episode", "id or place"),
    ("batch", "batch", "offset or place"),
    ("task", "task", "id or place"),
    ("turn", "turn", "id or place"),
    ("record", "record", "TOPIC/PARTITION/OFFSET"),
)
"""What can be looked up: its page, its name, and what to write."""


def page_html(page: PageView) -> str:
    """The page of something that was looked up."""
    address, at = page.address, page.window
    size = max(1, at.end - at.start)
    before = address.at(at.start - size) if at.start else None
    behind = address.at(at.end) if at.end < at.total else None
    given = drawing(page.sections, _targets(address.run)) | {
        "view": page,
        "tokens": page.tokens,
        "legend": LEGENDS[address.shade],
        "shades": [(shade, address.of(shade=shade).href) for shade in SHADES],
        "before": before.href if before else "",
        "behind": behind.href if behind else "",
        "jumps": [(name, address.at(at).href) for name, at in page.jumps],
        "other": _raw(address),
        "beside": _beside(address),
        "run": address.run,
    }
    return _rendered("view.html.j2", title=page.title, **given)


def run_html(page: RunPage) -> str:
    """The page of runs."""
    address, at = page.address, page.window
    size = max(1, at.end - at.start) if at else 1
    given = drawing(page.table, _targets("main")) | {
        "view": page,
        "acrosses": [(across, address.of(across=across, start=0).href) for across in ACROSS],
        "smooths": [(smooth, address.of(smooth=smooth, start=0).href) for smooth in SMOOTHS],
        "others": [
            (name, address.of(names=(*address.names, name), start=0).href)
            for name in page.others[: _most_others(page)]
        ],
        "alone": {plot.name: address.of(plot=plot.name, start=0).href for plot in page.plots},
        "all": address.of(plot="", start=0).href,
        "step_of": lambda mark: _href("step", f"{mark.run}:{mark.step}"),
        "before": address.of(start=max(0, at.start - size)).href if at and at.start else "",
        "behind": address.of(start=at.end).href if at and at.end < at.total else "",
        "run": "main",
    }
    title = f"run {', '.join(address.names)}"
    return _rendered("run.html.j2", title=title, **given)


def _most_others(page: RunPage) -> int:
    full = len(page.address.names) == MOST_RUNS
    sizes = (
        2 * len(page.address.of(names=(*page.address.names, name)).href) for name in page.others
    )
    return 0 if full else fitting(sizes, budget=OTHERS)


def front_html(sections: Sequence[Section] = (), line: str = "") -> str:
    """The first page: the runs, and what can be looked up.

    Args:
        sections: The runs.
        line: Why there are none.
    """
    given = drawing(sections, _targets("main"))
    return _rendered("front.html.j2", title="runs", line=line, run="main", **given)


def error_html(status: int, line: str) -> str:
    """The page of an error: one line that says what to do."""
    return _rendered("error.html.j2", title=f"{status}", line=line, run="main")


def _rendered(template: str, *, title: str, **given: Any) -> str:
    words: Mapping[str, Any] = {"title": visible(title), "forms": FORMS, **given}
    return environment(FOLDER).get_template(template).render(words)


def _targets(run: str) -> Any:
    def target(what: Shown, name: str) -> Target:
        return Target(_href(what, name, run))

    return target


def _href(what: Shown, name: str, run: str = "main") -> str:
    if what == "run":
        return RunAddress(names=(name,)).href
    return PageAddress(what=what, name=name, run=run).href


def _beside(address: PageAddress) -> list[tuple[str, str]]:
    """Names and addresses of pages beside a step's."""
    if address.what != "step":
        return []
    number = int(address.name)
    numbers = [n for n in (number - 1, number + 1) if n > 0]
    steps = [(f"step {n}", _href("step", f"{address.run}:{n}")) for n in numbers]
    return [(f"run {address.run}", _href("run", address.run)), *steps]


def _raw(address: PageAddress) -> tuple[str, str]:
    """The other form of a page: its name and its address."""
    other = address.of(raw=not address.raw, start=0)
    return ("page" if address.raw else "JSON", other.href)
