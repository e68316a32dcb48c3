"""DuckDB, shut in: rows in a file of its own, and one select at a time, with no way out.

Two connections follow each other on one file. The first takes rows, and no text of a person's. The
second asks: the file is read-only to it, DuckDB has neither files, network, extensions nor Python's
variables, and its settings are locked. Before any row is read, the query is held against empty
tables, so a mistake costs no time.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.infra.app.queries.statement import NamedTables
from odradek.infra.app.queries.tables import TABLES, QueryTable
from odradek.infra.errors import QueryRefused

MEMORY: Final = "256MiB"
"""What DuckDB holds in memory; what is beyond it goes to its folder."""
FETCHED: Final = 1000
"""Rows of an answer that are held at once."""
SHUT_IN: Final = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
"""DuckDB's settings for a person's text, in this order: behind the last, none can be changed."""
SERIALIZED: Final = "select json_serialize_sql(?::varchar)"
EXPLAINED: Final = re.compile(r"(LINE 1: )explain (.*\n) {8}", re.DOTALL)
"""What `plan` has put before the query, in DuckDB's quotation of it."""
BARE_OFFSET: Final = re.compile(r"(?<![\w.\"])offset(?![\w\"(])\s*(?!\d)", re.IGNORECASE)


class QueryAnswer(Struct, frozen=True):
    """What a query came to: rows are fetched as they are asked for."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    """DuckDB's, such as JSON."""
    rows: Iterator[tuple[Any, ...]]


class QueryDatabase:
    """A DuckDB file with the tables that a query may name.

    Args:
        folder: Empty, and its own: for the file, and for what memory does not hold.

    Raises QueryRefused where DuckDB or pyarrow is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._duckdb = _duckdb()
        self._path = folder / "rows.duckdb"
        self._settings = {
            "memory_limit": MEMORY,
            "temp_directory": str(folder / "spilled"),
        }
        self._rows: Any = None
        self._empty = self._duckdb.connect(":memory:", config={"memory_limit": MEMORY})
        self._empty.execute(";".join(map(_create, TABLES.values())))
        _shut_in(self._empty)

    def plan(self, sql: str) -> tuple[QueryTable, ...]:
        """The tables that a query names, in the order of `TABLES`.

        Raises QueryRefused where it is not one select, names a table that is not there, or where
        DuckDB does not understand it.
        """
        try:
            statements = self._empty.extract_statements(sql)
            if len(statements) != 1:
                raise QueryRefused(f"write one select statement; these are {len(statements)}")
            kind = statements[0].type
            if kind != self._duckdb.StatementType.SELECT:
                raise QueryRefused(
                    f"only a select is allowed, not {kind.name}: a query changes nothing"
                )
            (tree,) = self._empty.execute(SERIALIZED, [sql]).fetchone()
            tables = NamedTables.of(msgspec.json.decode(tree)).known()
            # Binds columns and functions, and runs nothing.
            self._empty.execute(f"explain {statements[0].query}")
        except self._duckdb.Error as error:
            raise QueryRefused(_message(error, sql)) from None
        return tables

    def begin(self, tables: Iterable[QueryTable]) -> None:
        """Make the file, with tables that can take rows.

        Rows are committed as they are added: what is not, DuckDB holds in memory beyond its limit.
        """
        self._rows = self._duckdb.connect(str(self._path), config=self._settings)
        self._rows.begin()
        for table in tables:
            self._rows.execute(_create(table))
        self._rows.commit()

    def add(self, table: QueryTable, arrow: Any) -> None:
        """Add rows to a table."""
        names = ", ".join(f'"{name}"' for name in arrow.schema.names)
        self._rows.register("arrived", arrow)
        self._rows.execute(f"insert into {table.name} ({names}) select {names} from arrived")  # noqa: S608 - names of ours
        self._rows.unregister("arrived")

    def ask(self, sql: str) -> QueryAnswer:
        """The answer to a query that `plan` has passed; no rows can be added any more.

        Raises QueryRefused, also while rows are fetched.
        """
        self._rows.close()
        asking = self._duckdb.connect(str(self._path), read_only=True, config=self._settings)
        self._rows = asking
        _shut_in(asking)
        return self.answer(sql)

    def answer(self, sql: str) -> QueryAnswer:
        """The answer to another query of the same rows. Raises QueryRefused."""
        asking = self._rows
        try:
            asking.execute(sql)
        except self._duckdb.Error as error:
            raise QueryRefused(_message(error, sql)) from None
        described = asking.description or []
        return QueryAnswer(
            tuple(_unique(str(column[0]) for column in described)),
            tuple(str(column[1]) for column in described),
            self._fetched(asking, sql),
        )

    def _fetched(self, asking: Any, sql: str) -> Iterator[tuple[Any, ...]]:
        try:
            while rows := asking.fetchmany(FETCHED):
                yield from rows
        except self._duckdb.Error as error:
            raise QueryRefused(_message(error, sql)) from None

    def close(self) -> None:
        """Let go of the file."""
        self._empty.close()
        if self._rows is not None:
            self._rows.close()


def _duckdb() -> Any:
    try:
        import duckdb
        import pyarrow  # noqa: F401, ICN001 - rows come as Arrow batches
    except ModuleNotFoundError as error:
        raise QueryRefused(
            f"odradek query needs {error.name}: pip install 'odradek[query]'"
        ) from error
    return duckdb


def _shut_in(connection: Any) -> None:
    for name, value in SHUT_IN.items():
        connection.execute(f"set {name} = {value}")


def _create(table: QueryTable) -> str:
    columns = ", ".join(f'"{column.name}" {column.type}' for column in table.columns)
    return f"create table {table.name} ({columns})"


def _message(error: Exception, sql: str) -> str:
    """DuckDB's own words, with the place that they point at; without advice that is none here."""
    text = str(error).partition("\n\nPlease try installing")[0]
    text = EXPLAINED.sub(r"\1\2", text)
    if "file system operations" in text or "disabled through configuration" in text:
        text = f"a query has neither files nor network: {text}"
    if "syntax error" in text and BARE_OFFSET.search(sql):
        text += '\noffset is a word of SQL: write "offset" in double quotes, or turns.offset'
    return text


def _unique(names: Iterable[str]) -> Iterator[str]:
    """The names of columns, those that come again with a number."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}_{counts[name]}"
