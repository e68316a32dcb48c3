"""Tables and help are readable on a narrow terminal: nothing is cut."""

import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from odradek.infra.app.bench.tables import show
from odradek.infra.app.cli import VERBS, main
from odradek.infra.app.session.progress import RunView
from odradek.infra.app.session.stats import RunStats
from odradek.infra.app.supervisor import ChildState
from odradek.infra.app.tables import ReadableTable, fit

ROOT = Path(__file__).parents[2]
HEADINGS = ("topic", "partitions", "retention", "key", "what")
WIDE = [
    ("odradek.a2a.requests.some-long-agent-name.v1", "16", "7 d, compact", "task id",
     "Requests of a dispatcher to the hosts of one agent, in the order of its tasks"),
    ("rl.turns.v1", "4", "", "episode id", "[bold]Turns[/bold] of 日本語 and others"),
]  # fmt: skip


def printed(renderable, width):
    out = StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def words(rows):
    return sorted(word for row in rows for cell in row for word in str(cell).split())


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60])
def test_no_word_of_a_wide_table_is_cut(width):
    """Every word of every cell stands whole on one line, and no line is too long."""
    text = printed(ReadableTable(HEADINGS, WIDE), width)
    assert set(words(WIDE)) <= set(text.split())
    assert "…" not in text
    assert width >= max(map(cell_len, text.splitlines()))


def test_a_table_that_fits_has_a_line_for_each_row():
    """So that a pager and grep can work on it."""
    assert len(WIDE) + 1 == len(printed(ReadableTable(HEADINGS, WIDE), 200).splitlines())


def test_rows_stand_below_each_other_where_they_cannot_stand_side_by_side():
    """The first cell is a line of its own, and each other cell has its heading before it."""
    lines = [line.rstrip() for line in printed(ReadableTable(HEADINGS, WIDE), 60).splitlines()]
    assert [
        "odradek.a2a.requests.some-long-agent-name.v1",
        "  partitions  16",
        "  retention   7 d, compact",
    ] == lines[:3]


def test_a_word_longer_than_the_terminal_goes_on_in_the_next_line():
    """All of it is there, even so."""
    text = printed(ReadableTable(("name", "what"), [("x" * 70, "y" * 70)]), 60)
    assert (70, 70) == (text.count("x"), text.count("y"))


cells = st.text(st.sampled_from("ab -.日\u00e9[]"), max_size=30).map(str.strip)


@given(
    rows=st.integers(1, 5).flatmap(
        lambda n: st.lists(st.tuples(*[cells] * n), min_size=1, max_size=4)
    ),
    width=st.integers(10, 120),
)
def test_any_cells_at_any_width_are_all_there(rows, width):
    """No character but blanks is lost, whatever the cells hold and however wide the terminal is."""
    text = printed(ReadableTable([""] * len(rows[0]), rows), width)
    assert sorted("".join(words(rows))) == sorted("".join(text.split()))
    assert width >= max(map(cell_len, text.splitlines()), default=0)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=4), st.integers(1, 100))
def test_columns_share_the_width_that_there_is(rows, width):
    """Side by side means: every longest word has its place, and the sum fits."""
    widths = fit(("", "", ""), rows, width)
    if widths is not None:
        assert width >= sum(widths) + 4
        assert all(
            cell_len(word) <= widths[at]
            for row in rows
            for at, cell in enumerate(row)
            for word in cell.split()
        )


@pytest.mark.parametrize("width", [80, 60])
def test_peers_of_a_benchmark_keep_their_names(width):
    """Seen: at 80 columns every name was cut to four letters."""
    load = {"cpu_ms": 12.25, "per_s": 1234.5, "p50_ms": 101.5, "p99_ms": 1202.5}
    names = ["rllm-model-gateway 0.1, sqlite, synchronous", "agent-lightning 1.0"]
    figures = {
        name: {"c1": load, "c32": load, "rss_kb_per_call": 93.3, "lost_on_kill": 15100}
        for name in names
    }
    out = StringIO()
    show(figures, Console(file=out, width=width))
    assert {word for name in names for word in name.split()} <= set(out.getvalue().split())
    assert "…" not in out.getvalue()


@pytest.mark.parametrize("width", [120, 80, 60])
def test_the_live_view_names_every_process(width):
    """Its tables stand below each other where the terminal is narrow."""
    names = ["agent-with-a-long-name-0", "reward-service-of-format", "proxy", "trainer", "engine"]
    session = SimpleNamespace(
        tally=RunStats(),
        supervisor=SimpleNamespace(
            states=dict.fromkeys(names, ChildState.READY), restarts=dict.fromkeys(names, 0)
        ),
        watch=SimpleNamespace(tally=RunStats(), lags=dict.fromkeys(names, 12345)),
    )
    text = printed(RunView(session, []).render(), width)
    assert all(2 == text.split().count(name) for name in names[:2])
    assert "…" not in text


def test_the_style_of_a_cell_changes_no_width():
    """A Text is measured by what it shows."""
    plain, styled = ("ready", "1"), (Text("ready", style="green"), "1")
    assert printed(ReadableTable(("", ""), [plain]), 80) == printed(
        ReadableTable(("", ""), [styled]), 80
    )


def test_every_table_goes_through_the_one_helper():
    """No other module makes a table of rich's, which cuts cells, and none pads names by hand."""
    folders = ("schemas", "streams", "agents", "trainer", "proxy", "infra")
    own = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"from rich\.table|rich import table|\.ljust\(", path.read_text())
    ]
    assert ["infra/app/tables.py"] == own


def verbs():
    """Every verb and subcommand: (its words, its command)."""
    ahead = [((verb,), main.get_command(click.Context(main), verb)) for verb in VERBS]
    while ahead:
        path, verb = ahead.pop()
        yield path, verb
        if isinstance(verb, click.Group):
            ctx = click.Context(verb)
            ahead += [
                ((*path, name), verb.get_command(ctx, name)) for name in verb.list_commands(ctx)
            ]


@pytest.mark.parametrize("width", [80, 60])
def test_the_help_of_no_verb_is_cut(width):
    """Neither by dots at the end of a line, nor with click's mark for lines of their own in it."""
    cut = {}
    for path, verb in verbs():
        ctx = click.Context(verb, info_name=" ".join(path), terminal_width=width)
        lines = verb.get_help(ctx).splitlines()
        cut[path] = [line for line in lines if re.search(r"\w\.\.\.$|\\b", line)]
    assert {} == {path: lines for path, lines in cut.items() if lines}
