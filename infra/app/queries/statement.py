"""What a select names, from the tree that DuckDB's own parser makes of it. Pure."""

import difflib
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.queries.tables import TABLES, QueryTable
from odradek.infra.errors import QueryRefused

HIDING: Final = frozenset({"query", "query_table", "json_execute_serialized_sql"})
"""Functions that run SQL which the parser does not see."""


class NamedTables(Struct, frozen=True):
    """The names in a select, in lower case."""

    tables: frozenset[str]
    """As they are read from, those of its own subqueries (`with`) among them."""
    own: frozenset[str]
    """Names that it gives to subqueries."""
    functions: frozenset[str]
    """Functions that are read from."""

    @classmethod
    def of(cls, tree: Any) -> "NamedTables":
        """The names in a tree, as `json_serialize_sql` gives it."""
        tables: set[str] = set()
        own: set[str] = set()
        functions: set[str] = set()
        for node in _nodes(tree):
            kind = node.get("type")
            if kind == "BASE_TABLE" and node.get("schema_name") in {"", "main"}:
                tables.add(node["table_name"].lower())
            elif kind == "TABLE_FUNCTION":
                functions.add(node["function"]["function_name"].lower())
            own.update(each["key"].lower() for each in _ctes(node))
        return cls(frozenset(tables), frozenset(own), frozenset(functions))

    def known(self) -> tuple[QueryTable, ...]:
        """The tables that are to be read, in the order of `TABLES`.

        A table whose name a subquery has, too, is among them: it may be meant elsewhere.
        Raises QueryRefused for a name that is none, and for SQL that hides what it reads.
        """
        for function in sorted(self.functions & HIDING):
            raise QueryRefused(f"{function}(…) hides what it reads: write its select itself")
        for name in sorted(self.tables - self.own - TABLES.keys()):
            near = difflib.get_close_matches(name, TABLES, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise QueryRefused(f"there is no table {name!r}{hint}; there are {', '.join(TABLES)}")
        return tuple(table for name, table in TABLES.items() if name in self.tables)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in a tree; it is as deep as the query is nested."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _ctes(node: dict[str, Any]) -> list[dict[str, Any]]:
    named = node.get("cte_map")
    return named["map"] if isinstance(named, dict) else []
