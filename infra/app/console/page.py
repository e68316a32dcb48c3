"""Pages as HTML, by Jinja2: `templates/` has their forms, `history` what is drawn of a view."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from odradek.infra.app.console.addresses import PageAddress
from odradek.infra.app.console.views import PageView
from odradek.infra.app.history.page import STYLE as HISTORY_STYLE
from odradek.infra.app.history.page import Target, drawing, environment
from odradek.infra.app.history.sections import Shown
from odradek.infra.app.history.shading import LEGENDS, SHADES, visible

FOLDER: Final = Path(__file__).parent / "templates"
STYLE: Final = HISTORY_STYLE + (FOLDER / "console.css").read_text()
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
        "shades": [(shade, _shaded(address, shade).href) for shade in SHADES],
        "before": before.href if before else "",
        "behind": behind.href if behind else "",
        "jumps": [(name, address.at(at).href) for name, at in page.jumps],
        "other": _raw(address),
        "run": address.run,
    }
    return _rendered("view.html.j2", title=page.title, **given)


def front_html() -> str:
    """The first page."""
    return _rendered("front.html.j2", title="Odradek", run="main")


def error_html(status: int, line: str) -> str:
    """The page of an error: one line that says what to do."""
    return _rendered("error.html.j2", title=f"{status}", line=line, run="main")


def _rendered(template: str, *, title: str, **given: Any) -> str:
    words: Mapping[str, Any] = {"title": visible(title), "forms": FORMS, **given}
    return environment(FOLDER).get_template(template).render(words)


def _targets(run: str) -> Any:
    def target(what: Shown, name: str) -> Target:
        return Target(PageAddress(what=what, name=name, run=run).href)

    return target


def _raw(address: PageAddress) -> tuple[str, str]:
    """The other form of a page: its name and its address."""
    import msgspec

    other = msgspec.structs.replace(address, raw=not address.raw, start=0)
    return ("page" if address.raw else "JSON", other.href)


def _shaded(address: PageAddress, shade: Any) -> PageAddress:
    import msgspec

    return msgspec.structs.replace(address, shade=shade)
