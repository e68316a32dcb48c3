"""Addresses of a run's page: `/run?name=main&name=again&plot=reward&smooth=8`. Pure."""

import re
from collections.abc import Iterable
from typing import Final, Literal, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct

from odradek.infra.app.console.addresses import LONGEST_RUN
from odradek.infra.app.console.run.plots import PLOTS
from odradek.infra.errors import PageRefused

Across = Literal["step", "time"]
ACROSS: Final[tuple[Across, ...]] = get_args(Across)
MOST_RUNS: Final = 6
WIDEST: Final = 10_000
"""Steps of a moving mean."""
NUMBER: Final = re.compile(r"\d{1,12}", re.ASCII)


class RunAddress(Struct, frozen=True, kw_only=True):
    """What a run's page shows."""

    names: tuple[str, ...]
    """Of the runs, laid over each other."""
    plot: str = ""
    """The one picture that is shown large, with its numbers; empty: all, small."""
    across: Across = "step"
    smooth: int = 1
    """Steps of the moving mean."""
    low: int = 0
    """The first step."""
    high: int = 0
    """The step behind the last one; 0: there is no last one."""
    start: int = 0
    """The first part of the table that is shown."""

    @property
    def href(self) -> str:
        """The address."""
        words = [
            *(("name", name) for name in self.names),
            ("plot", self.plot),
            ("by", self.across if self.across != "step" else ""),
            ("smooth", str(self.smooth) if self.smooth > 1 else ""),
            ("low", str(self.low or "")),
            ("high", str(self.high or "")),
            ("from", str(self.start or "")),
        ]
        return "/run?" + "&".join(f"{name}={quote(text, safe='')}" for name, text in words if text)

    def of(self, **changes: object) -> "RunAddress":
        """The same, with changes."""
        return msgspec.structs.replace(self, **changes)


def parse_run(query: Iterable[tuple[str, str]]) -> RunAddress:
    """What an address shows. Raises PageRefused, saying what it may be."""
    pairs = list(query)
    first = dict(reversed(pairs))
    names = tuple(dict.fromkeys(text for name, text in pairs if name == "name" and text))
    if not names:
        raise PageRefused("say which run: its name in the ledger, such as main")
    if len(names) > MOST_RUNS:
        raise PageRefused(f"at most {MOST_RUNS} runs are laid over each other")
    if sum(map(len, names)) > LONGEST_RUN:
        raise PageRefused(f"names of runs have at most {LONGEST_RUN} characters together")
    plot = first.get("plot", "")
    if plot and plot not in PLOTS:
        raise PageRefused(f"there is no plot {plot!r}: there are {', '.join(PLOTS)}")
    across = first.get("by", "") or "step"
    if across not in ACROSS:
        raise PageRefused(f"curves go by {' or '.join(ACROSS)}, not by {across!r}")
    low, high = _number(first, "low"), _number(first, "high")
    if high and low >= high:
        raise PageRefused(f"low={low} and high={high} leave no step: high is behind the last one")
    return RunAddress(
        names=names,
        plot=plot,
        across=across,
        smooth=min(WIDEST, max(1, _number(first, "smooth"))),
        low=low,
        high=high,
        start=_number(first, "from"),
    )


def _number(query: dict[str, str], name: str) -> int:
    text = query.get(name, "").strip() or "0"
    if not NUMBER.fullmatch(text):
        raise PageRefused(f"{name}={text!r} is no number from 0 on")
    return int(text)
