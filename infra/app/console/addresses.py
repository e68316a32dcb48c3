"""Addresses of pages: `/episode?name=ID&from=2000`. Pure.

What is shown is named in the query, since names are anybody's text: a browser would make another
address of `/episode/..`.
"""

import re
from collections.abc import Mapping
from typing import Final, cast, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct

from odradek.infra.app.history.sections import Shown
from odradek.infra.app.history.shading import SHADES, Shade
from odradek.infra.errors import PageRefused

SHOWN: Final = tuple(what for what in get_args(Shown) if what != "run")
"""What is looked up; pages of runs have addresses of their own."""
LONGEST: Final = 1024
"""Characters of a name."""
LONGEST_RUN: Final = 256
"""Characters of a run's name, as events have it."""
FURTHEST: Final = 10**15
NUMBER: Final = re.compile(r"\d{1,16}", re.ASCII)
ROW: Final = re.compile(r"(.+)/(\d{1,9})", re.ASCII | re.DOTALL)


class PageAddress(Struct, frozen=True, kw_only=True):
    """What a page shows."""

    what: Shown
    name: str
    run: str = "main"
    """Whose steps are meant."""
    start: int = 0
    """The first part, token or character that is shown."""
    shade: Shade = "mask"
    """What colours tokens."""
    step: int = 0
    """Of a row: the step that is to have used it; 0: none is meant."""
    raw: bool = False
    """Whether it is shown as JSON."""

    @property
    def href(self) -> str:
        """The address: a path with a query, all that is not ASCII escaped."""
        words = {
            "name": self.name,
            "run": self.run if self.run != "main" else "",
            "from": str(self.start) if self.start else "",
            "by": self.shade if self.shade != "mask" else "",
            "step": str(self.step) if self.step else "",
            "raw": "1" if self.raw else "",
        }
        query = "&".join(f"{name}={quote(text, safe='/')}" for name, text in words.items() if text)
        return f"/{self.what}?{query}"

    def at(self, start: int) -> "PageAddress":
        """The same, from another part on."""
        return self.of(start=max(0, start))

    def of(self, **changes: object) -> "PageAddress":
        """The same, with changes."""
        return msgspec.structs.replace(self, **changes)


def parse(what: str, query: Mapping[str, str]) -> PageAddress:
    """What an address shows. Raises PageRefused, saying what it may be."""
    if what not in SHOWN:
        raise PageRefused(f"there is no page {what!r}: there are {', '.join(SHOWN)}")
    name = query.get("name", "").strip()
    if not name:
        raise PageRefused(f"say which {what}: its {_names_of(what)}")
    run = query.get("run", "") or "main"
    if what == "step":
        of, _, name = name.rpartition(":")
        run = of or run
        if not (NUMBER.fullmatch(name) and int(name) > 0):
            raise PageRefused(f"{name!r} is no step: steps are counted from 1")
    for text, longest in ((name, LONGEST), (run, LONGEST_RUN)):
        if len(text) > longest:
            raise PageRefused(f"a name like that has at most {longest} characters")
    shade = query.get("by", "") or "mask"
    if shade not in SHADES:
        raise PageRefused(f"tokens have no {shade!r}: they are coloured by {', '.join(SHADES)}")
    return PageAddress(
        what=cast("Shown", what),
        name=name,
        run=run,
        start=_number(query, "from"),
        shade=shade,
        step=_number(query, "step"),
        raw=query.get("raw", "") not in {"", "0"},
    )


def row_of(name: str) -> tuple[str, int]:
    """The place of a row's batch or episode, and the row's number. Raises PageRefused."""
    match = ROW.fullmatch(name)
    if match is None:
        raise PageRefused(f"{name!r} is no row: write {_names_of('row')}")
    return match[1], int(match[2])


def _names_of(what: str) -> str:
    match what:
        case "step":
            return "number, or RUN:NUMBER"
        case "batch":
            return "offset, or TOPIC/PARTITION/OFFSET"
        case "row":
            return "batch as TOPIC/PARTITION/OFFSET, and behind it /ROW"
        case "record":
            return "place, TOPIC/PARTITION/OFFSET"
    return "id, or TOPIC/PARTITION/OFFSET"


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not NUMBER.fullmatch(text) or int(text) > FURTHEST:
        raise PageRefused(f"{name}={text!r} is no number from 0 on")
    return int(text)
