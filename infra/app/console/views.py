"""What a page shows: a window of what was looked up. Pure."""

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from odradek.infra.app.console.addresses import PageAddress
from odradek.infra.app.console.windows import (
    BUDGET,
    CHARACTERS,
    PART,
    TAG,
    TOKENS,
    WindowPosition,
    parts,
    size_of,
    token_size,
    window,
)
from odradek.infra.app.history.sections import (
    Cell,
    Facts,
    Grid,
    Heading,
    Lead,
    Section,
    ShownTokens,
    row_line,
    sections_of,
    versions_of,
)
from odradek.infra.app.history.shading import DrawnToken, drawn_tokens
from odradek.infra.app.history.views import RowView, TokensView, TurnView

Unit = Literal["parts", "tokens", "characters"]
"""What a window counts."""
ROW_HEADINGS: Final = (
    "row", "sample", "sequence", "reward", "advantage", "weight", "versions", "staleness",
    "trained on", "tokens", "",
)  # fmt: skip
TURNS_OF_ROW: Final = 40
"""Turns that a row's page lists; its episode's page lists all."""


class RowOnLog(Struct, frozen=True):
    """A row, and where it is."""

    place: str
    """Of its batch; of its episode where no batch points at that."""
    row: RowView
    step: int = 0
    """That is meant to have used it; 0: none is meant."""


class RecordView(Struct, frozen=True, kw_only=True):
    """A record as it stands on the log."""

    at: str
    key: str
    timestamp: float
    headers: dict[str, str]
    text: str
    """Its value: JSON indented, anything else as it is."""


class PageView(Struct, frozen=True, kw_only=True):
    """A page, whole: what stands on it and where it leads to."""

    title: str
    address: PageAddress
    sections: tuple[Section, ...]
    tokens: tuple[DrawnToken, ...] = ()
    text: str = ""
    unit: Unit = "parts"
    window: WindowPosition
    jumps: tuple[tuple[str, int], ...] = ()
    """Names of places in the tokens, and where they are."""


def page_view(view: Any, address: PageAddress) -> PageView:
    """What a page shows of something that was looked up."""
    if isinstance(view, RecordView):
        return _record_page(view, address)
    if address.raw:
        return _text_page(f"{address.what} {address.name}, as JSON", indented(view), address)
    if isinstance(view, RowOnLog):
        return _token_page(view.row.tokens, tuple(_row_sections(view)), address)
    sections = [one for one in sections_of(view, _row_table) if not isinstance(one, ShownTokens)]
    if isinstance(view, TurnView):
        return _token_page(view.tokens, tuple(parts(sections)), address)
    listed = list(parts(sections))
    link = _link_bytes(address)
    at = window(listed, address.start, lambda n: size_of(listed[n], link))
    return PageView(
        title=_title(listed),
        address=address,
        sections=tuple(listed[at.start : at.end]),
        window=at,
    )


def _row_table(place: str, rows: tuple[RowView, ...]) -> Iterator[Section]:
    """Rows as a table; each leads to its tokens."""
    if rows:
        yield Grid(ROW_HEADINGS, tuple(_row_cells(place, row) for row in rows), "rows")


def _row_cells(place: str, row: RowView) -> tuple[Cell, ...]:
    notes = (
        f"refused: {row.refused}" if row.refused else "",
        "drawn again" if row.replayed else "",
        f"importance {row.importance:g}" if row.importance != 1 else "",
        f"child {row.child}" if row.child else "",
    )
    return (
        Lead(f"row {row.row}", "row", f"{place}/{row.row}"),
        str(row.sample),
        str(row.sequence),
        f"{row.reward:g}",
        f"{row.advantage:+.4f}",
        f"{row.weight:g}",
        versions_of(row),
        "" if row.staleness is None else str(row.staleness),
        str(sum(row.tokens.trained)),
        str(len(row.tokens.ids)),
        ", ".join(note for note in notes if note),
    )


def _row_sections(found: RowOnLog) -> Iterator[Section]:
    row = found.row
    yield Heading(f"row {row.row} of {found.place}")
    yield row_line(row)
    facts: list[tuple[str, Cell]] = [
        ("episode", Lead(row.episode_id, "episode", row.episode_id)),
        ("at", row.at),
        ("of", found.place),
    ]
    if found.step:
        facts.append(("step", Lead(f"step {found.step}", "step", str(found.step))))
    yield Facts(tuple(facts))
    turns = tuple((Lead(name, "turn", name),) for name in row.turns[:TURNS_OF_ROW])
    more = f"turns: the first {TURNS_OF_ROW} of {len(row.turns)}"
    if turns:
        yield Grid(("turn",), turns, more if len(row.turns) > TURNS_OF_ROW else "turns")


def _token_page(
    tokens: TokensView, sections: tuple[Section, ...], address: PageAddress
) -> PageView:
    ahead = sum(size_of(one, _link_bytes(address)) for one in sections)
    start = max(0, min(address.start, len(tokens.ids) - 1))
    drawn = list(drawn_tokens(tokens, address.shade, start=start, end=start + TOKENS))
    at = window(
        tokens.ids,
        start,
        lambda n: token_size(drawn[n - start]),
        budget=max(PART, BUDGET - ahead),
        most=TOKENS,
    )
    return PageView(
        title=_title(sections),
        address=address,
        sections=sections,
        tokens=tuple(drawn[: at.end - at.start]),
        unit="tokens",
        window=at,
        jumps=tuple(_jumps(tokens, at)),
    )


def _jumps(tokens: TokensView, at: WindowPosition) -> Iterator[tuple[str, int]]:
    """Where tokens are that are trained on: the first ones, and the next behind the window."""
    for name, since in (("first trained on", 0), ("next trained on", at.end)):
        found = next((n for n in range(since, at.total) if tokens.trained[n]), None)
        if found is not None:
            yield name, found


def _record_page(view: RecordView, address: PageAddress) -> PageView:
    facts: list[tuple[str, Cell]] = [
        ("key", view.key),
        ("written", f"{view.timestamp:.3f}"),
        *((f"header {name}", text) for name, text in view.headers.items()),
    ]
    head = list(parts([Heading(f"record {view.at}"), Facts(tuple(facts))]))[:4]
    return _text_page(f"record {view.at}", view.text, address, tuple(head))


def _text_page(
    title: str, text: str, address: PageAddress, sections: tuple[Section, ...] = ()
) -> PageView:
    start = max(0, min(address.start, len(text) - 1))
    at = WindowPosition(start, min(start + CHARACTERS, len(text)), len(text))
    shown = sections or (Heading(title),)
    return PageView(
        title=title,
        address=address,
        sections=shown,
        text=text[at.start : at.end],
        unit="characters",
        window=at,
    )


def indented(view: Any) -> str:
    """A view as JSON for people: what `odradek show --json` prints, with line ends."""
    return msgspec.json.format(msgspec.json.encode(view), indent=1).decode()


def _title(sections: Any) -> str:
    return next(one.text for one in sections if isinstance(one, Heading))


def _link_bytes(address: PageAddress) -> int:
    return TAG + 3 * len(address.run.encode())
