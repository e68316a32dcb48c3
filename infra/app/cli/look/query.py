"""`odradek query`: SQL over topics."""

import asyncio
import csv
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from msgspec import Raw

from odradek.infra.app.cli.selection import IMPORTED, SKIP_MISSING, filters, selection_of
from odradek.infra.runtime.foreign_code import printable

if TYPE_CHECKING:
    from odradek.infra.app.queries import QueryAnswer, QueryDatabase
    from odradek.infra.app.queries.fill import Filled
    from odradek.streams.history import Selection

SHOWN: Final = 200
"""Rows of a table for people; --json and --csv have all."""


@click.command()
@click.argument("sql", required=False)
@click.option("--tables", is_flag=True, help="List the tables and their columns; read nothing.")
@filters
@click.option(
    "--from",
    "source",
    default="",
    metavar="TOPIC",
    help="Topic of the table `batches`, and of the filters.  [default: rl.batches.v1]",
)
@SKIP_MISSING
@IMPORTED
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated, with a line of headings.")
def command(
    sql: str | None,
    tables: bool,
    source: str,
    skip_missing: bool,
    imported: bool,
    as_json: bool,
    as_csv: bool,
    **words: Any,
) -> None:
    """Ask the topics in SQL, through DuckDB.

    \b
    odradek query "select outcome, count(*), avg(reward) from episodes group by all"
    odradek query "select step, record->'metrics'->>'loss' as loss from steps where optimized"
    odradek query --steps 100:101 "select place, reward from episodes order by reward"
    odradek query --csv "from dead_letters" > letters.csv
    odradek query --tables

    Only the topics of the tables that SQL names are read, once, to their ends of now. Each row is
    an event: its place (which `odradek show` takes), partition, offset, timestamp (UTC), its
    numbers and texts, and in `record` the whole event as JSON. `offset` is a word of SQL: write
    "offset" in double quotes, or turns.offset.

    SQL is one select. It has neither files nor network. Rows are kept in a temporary folder, which
    is deleted at the end; DuckDB holds at most 256 MiB in memory.

    Filters are those of `odradek replay`: only rows of such batches, of their tasks and episodes,
    and steps that used them. Without any, all rows are meant. Policies are not filtered.
    """  # noqa: D301 - \b is click's sign for "do not wrap"
    if tables:
        _list(as_json=as_json)
        return
    if not sql:
        raise click.UsageError('give a select, such as "from episodes", or --tables')
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    from odradek.infra.app.queries import QueryDatabase

    selection = selection_of(**words)
    with tempfile.TemporaryDirectory(prefix="odradek-query-") as folder:
        database = QueryDatabase(Path(folder))
        try:
            filled = _fill(
                database,
                sql,
                selection,
                source=source,
                skip_missing=skip_missing,
                imported=imported,
            )
            answer = database.ask(sql)
            if as_json:
                _json(answer)
            elif as_csv:
                _csv(answer)
            else:
                _table(answer)
        finally:
            database.close()
    for line in _notes(filled):
        click.echo(line, err=True)


def _fill(database: "QueryDatabase", sql: str, selection: "Selection", **where: Any) -> "Filled":
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.app.queries import fill
    from odradek.infra.bus import BusSettings

    tables = database.plan(sql)
    bus = BusSettings() if tables else None
    with counting() as bar:
        tasks: dict[str, Any] = {}

        def moved(topic: str, done: int, of: int) -> None:
            if topic not in tasks:
                tasks[topic] = bar.add_task(topic, total=None)
            bar.update(tasks[topic], completed=done, total=of)

        return asyncio.run(fill(bus, database, tables, selection, progress=moved, **where))


def _list(*, as_json: bool) -> None:
    from rich.console import Console

    from odradek.infra.app.queries.tables import listed
    from odradek.infra.app.tables import ReadableTable

    if as_json:
        for table in listed():
            click.echo(msgspec.json.encode(table))
        return
    cells = [
        (table["table"], table["topic"], table["about"], " ".join(table["columns"]))
        for table in listed()
    ]
    Console().print(ReadableTable(("table", "topic", "rows", "columns"), cells))


def _json(answer: "QueryAnswer") -> None:
    raw = [kind == "JSON" for kind in answer.types]
    for row in answer.rows:
        values = (
            Raw(value.encode()) if is_json and isinstance(value, str) else value
            for value, is_json in zip(row, raw, strict=True)
        )
        click.echo(_encoded(dict(zip(answer.names, values, strict=True))))


def _encoded(row: dict[str, Any]) -> bytes:
    """A row as JSON: what JSON has no form for is text."""
    return msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode(row)


def _csv(answer: "QueryAnswer") -> None:
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(answer.names)
    for row in answer.rows:
        lines.writerow(row)


def _table(answer: "QueryAnswer") -> None:
    from rich.console import Console

    from odradek.infra.app.tables import ReadableTable

    shown = list(islice(answer.rows, SHOWN))
    cells = [tuple(_cells(row)) for row in shown]
    Console().print(ReadableTable(answer.names, cells))
    if next(answer.rows, None) is not None:
        click.echo(f"the first {SHOWN} rows; --json and --csv give all of them", err=True)


def _cells(row: tuple[Any, ...]) -> Iterator[str]:
    """Values for a terminal: what agents wrote moves no cursor."""
    for value in row:
        yield printable("" if value is None else str(value), kept="\n\t")


def _notes(filled: "Filled") -> Iterator[str]:
    for topic, n in sorted(filled.unreadable.items()):
        yield f"{n} records of {topic} hold no event of it, and are no rows"
    if filled.left_out:
        yield f"{filled.left_out} batches were left out: episodes of them are gone"
