"""Rows of a table as Arrow batches, each of bounded size."""

from typing import Any, Final

from odradek.infra.app.queries.columns import json_text, text
from odradek.infra.app.queries.tables import LetterHead, QueryTable
from odradek.infra.bus import Record
from odradek.streams.history.pointers import shown

ROWS: Final = 4096
"""Rows of an Arrow batch, at most."""
BYTES: Final = 8 * 1024 * 1024
"""Bytes of records in an Arrow batch, at most, but for a single larger record."""


class RowBatch:
    """Rows of one table that are not in the database yet."""

    def __init__(self, table: QueryTable) -> None:
        self.table = table
        self.rows = 0
        self._bytes = 0
        self._fields = table.fields
        self._values: dict[str, list[Any]] = {}
        self._clear()

    def _clear(self) -> None:
        self.rows = self._bytes = 0
        self._values = {column.name: [] for column in self.table.columns}

    @property
    def is_full(self) -> bool:
        """Whether it should be taken before another row is added."""
        return self.rows >= ROWS or self._bytes >= BYTES

    def add(self, record: Record, event: Any) -> None:
        """Add the row of a record."""
        self._values["place"].append(shown(record.address))
        self._values["partition"].append(record.partition)
        self._values["offset"].append(record.offset)
        self._values["timestamp"].append(round(record.timestamp * 1000))
        for column in self._fields:
            self._values[column.name].append(text(column.value(event)))
        value = record.value or b""
        letter = isinstance(event, LetterHead)  # others were read as JSON
        self._values["record"].append(json_text(value) if letter else value.decode())
        self.rows += 1
        self._bytes += len(value)

    def take(self) -> Any:
        """The rows as an Arrow table; none are left."""
        import pyarrow as pa

        types = {
            "varchar": pa.string(),
            "json": pa.string(),
            "integer": pa.int32(),
            "bigint": pa.int64(),
            "double": pa.float64(),
            "boolean": pa.bool_(),
            "timestamp": pa.timestamp("ms"),
        }
        columns = self.table.columns
        schema = pa.schema([(column.name, types[column.type]) for column in columns])
        arrow = pa.table(self._values, schema=schema)
        self._clear()
        return arrow
