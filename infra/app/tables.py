"""Tables for a terminal of any width: a cell wraps between words, and nothing is cut."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

GAPS: Final = (2, 1)
"""Blanks between two columns: the second where the first leaves too little."""
NARROW: Final = 16
"""The least width of a column whose text wraps."""
INDENT: Final = 2
"""Blanks before the cells of a stacked row, and between its two columns."""
NUMBER: Final = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?|-|")
"""A cell that is aligned right: a number, a dash for none, or nothing."""


@dataclass(frozen=True)
class ReadableTable:
    """Rows of text, laid out for the width that there is. Any rich console prints it.

    Where the longest word of each column fits side by side, it is a table whose cells wrap between
    words. Elsewhere rows stand below each other: the first cell, then a line for each other cell.

    Args:
        headings: One for each column; all empty for a table without a line of headings.
        rows: As many cells each as there are headings; a Text has a style of its own.
        title: A line above.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    title: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From the widest single word to the width at which no cell wraps."""
        columns = list(zip(self.headings, *self._plain(), strict=True))
        natural = sum(max(map(cell_len, column)) for column in columns)
        natural = max(natural + GAPS[0] * (len(columns) - 1), cell_len(self.title))
        narrowest = max(_longest_word(cell) for column in columns for cell in column)
        return Measurement(narrowest, max(narrowest, natural)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title, and the rows in the layout that fits."""
        if self.title:
            yield Text(self.title, style="italic")
        for gap in GAPS:
            if widths := fit(self.headings, self._plain(), options.max_width, gap):
                yield self._side_by_side(widths, gap)
                return
        yield from self._stacked()

    def _plain(self) -> list[list[str]]:
        return [[str(cell) for cell in row] for row in self.rows]

    def _side_by_side(self, widths: Sequence[int], gap: int) -> Table:
        table = Table(
            box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=any(self.headings)
        )
        for at, (heading, width) in enumerate(zip(self.headings, widths, strict=True)):
            cells = [str(row[at]) for row in self.rows]
            right = any(cells) and all(NUMBER.fullmatch(cell) for cell in cells)
            table.add_column(
                Text(heading), width=width, overflow="fold", justify="right" if right else "left"
            )
        for row in self.rows:
            table.add_row(*map(_text, row))
        return table

    def _stacked(self) -> Iterator[Text | Table]:
        for first, *rest in self.rows:
            yield Text(str(first), style="bold", overflow="fold")
            cells = Table.grid(padding=(0, INDENT, 0, 0), pad_edge=False)
            cells.add_column(width=0)
            cells.add_column(overflow="fold")
            cells.add_column(overflow="fold")
            for heading, cell in zip(self.headings[1:], rest, strict=True):
                if str(cell):
                    cells.add_row("", Text(heading), _text(cell))
            yield cells


def fit(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, gap: int = GAPS[0]
) -> list[int] | None:
    """The width of each column, in cells of the terminal; None where no layout side by side fits.

    No column is narrower than its longest word, nor than `NARROW` where its cells are longer. What
    is left goes to the columns that need least.
    """
    columns = list(zip(headings, *rows, strict=True))
    natural = [max(map(cell_len, column)) for column in columns]
    narrowest = [
        max(min(NARROW, max(map(cell_len, column[1:]), default=0)), *map(_longest_word, column))
        for column in columns
    ]
    spare = width - sum(narrowest) - gap * (len(columns) - 1)
    if spare < 0:
        return None
    chosen = list(narrowest)
    order = sorted(range(len(columns)), key=lambda at: natural[at] - narrowest[at])
    for n_done, at in enumerate(order):
        extra = min(natural[at] - narrowest[at], spare // (len(order) - n_done))
        chosen[at] += extra
        spare -= extra
    return chosen


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)
