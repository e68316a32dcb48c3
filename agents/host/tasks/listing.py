"""The tasks of an agent, of all its hosts, page by page: they lie on disk, not in memory."""

import asyncio
import sqlite3
import weakref
from typing import Any, Final

import msgspec
from a2a.types import ListTasksRequest, ListTasksResponse, TaskState
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import (
    ListTasksCursor,
    apply_history_length,
    decode_list_tasks_cursor,
    encode_list_tasks_cursor,
)
from google.protobuf.timestamp_pb2 import Timestamp

from odradek.agents.binding import headers as names
from odradek.agents.binding.responses import read_snapshot
from odradek.infra.bus import BusSettings, Record, at_offsets, to_end
from odradek.schemas.codec import header

PAGE: Final = 50
"""Tasks of a page where nobody says (A2A section 3.1.4)."""
CACHE_KB: Final = 4096
"""Of the table that are kept in memory."""
UNDATED: Final = -1
"""The time of a task that has none: it is listed behind all others."""
TABLE: Final = """
CREATE TABLE tasks (id TEXT PRIMARY KEY, owner TEXT, context TEXT, state INTEGER, changed INTEGER,
                    value BLOB) WITHOUT ROWID;
CREATE INDEX by_change ON tasks (owner, changed, id);
"""

LAST: Final = 2**63 - 1
"""A time behind all others."""
WHERE: Final = """
FROM tasks WHERE owner = :owner AND (:context = '' OR context = :context)
             AND (:state = 0 OR state = :state) AND changed >= :after
"""
COUNT: Final = "SELECT count(*) " + WHERE
SELECT: Final = (
    "SELECT changed, id, value "
    + WHERE
    + "AND (changed, id) < (:before, :id) ORDER BY changed DESC, id DESC LIMIT :most"
)


class _Status(msgspec.Struct, frozen=True):
    state: str = ""
    timestamp: str = ""


class _Listed(msgspec.Struct, frozen=True, rename="camel"):
    """What a snapshot says of its place in a list."""

    id: str
    context_id: str = ""
    status: _Status = _Status()


_decoder: Final = msgspec.json.Decoder(_Listed)


class TaskList:
    """The snapshots of all partitions, in a table of SQLite's that lies in a file without a name.

    Each question reads what is new since the last one, so it sees what ended before it. In memory
    are a page and `CACHE_KB`, however many tasks there are.

    Args:
        bus: Where Kafka is.
        topic: Of the snapshots, without prefix.
    """

    def __init__(self, bus: BusSettings, topic: str) -> None:
        self._bus = bus
        self._topic = topic
        self._offsets: dict[tuple[str, int], int] = {}
        self._reading = asyncio.Lock()
        # An empty name: a table of its own on disk, which goes with its connection.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        self._table.executescript(TABLE)

    async def page(self, request: ListTasksRequest, principal: str) -> ListTasksResponse:
        """One page of a principal's tasks, the one that changed last first. Raises A2AError."""
        async with self._reading:  # two readers would put an older snapshot over a newer one
            start = at_offsets(self._bus, self._offsets)
            async for record in to_end(self._bus, self._topic, start=start):
                self.take(record)
            return await asyncio.to_thread(self.select, request, principal)

    def take(self, record: Record) -> None:
        """Put a snapshot in its place; a tombstone ends its task, and what is no task is left."""
        self._offsets[record.topic, record.partition] = record.offset + 1
        if record.value is None:
            self._table.execute("DELETE FROM tasks WHERE id = ?", (record.key or "",))
            return
        try:
            listed = _decoder.decode(record.value)
            changed = _moment(listed.status.timestamp)
            state = _state(listed.status.state)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            return
        owner = header(record.headers, names.PRINCIPAL) or ""
        row = (listed.id, owner, listed.context_id, state, changed, record.value)
        self._table.execute("REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?)", row)

    def select(self, request: ListTasksRequest, principal: str) -> ListTasksResponse:
        """A page out of the table. Raises InvalidParamsError for a token that is none of ours."""
        asked = _filter(request, principal)
        (total,) = self._table.execute(COUNT, asked).fetchone()
        if request.page_token:
            cursor = decode_list_tasks_cursor(request.page_token)
            if cursor is None:
                raise InvalidParamsError(f"invalid page token: {request.page_token}")
            asked["before"] = UNDATED if cursor.timestamp_ns is None else cursor.timestamp_ns
            asked["id"] = cursor.task_id
        size = request.page_size or PAGE
        rows = self._table.execute(SELECT, {**asked, "most": size + 1}).fetchall()
        page = ListTasksResponse(total_size=total, page_size=size)
        for _, _, value in rows[:size]:
            task = read_snapshot(value)
            if not request.include_artifacts:
                task.ClearField("artifacts")
            page.tasks.append(apply_history_length(task, request))
        if len(rows) > size:
            changed, task_id, _ = rows[size - 1]
            last = ListTasksCursor(None if changed == UNDATED else changed, task_id)
            page.next_page_token = encode_list_tasks_cursor(last)
        return page


def _filter(request: ListTasksRequest, principal: str) -> dict[str, Any]:
    """Which tasks a request asks for: the values of the statements' names."""
    dated = request.HasField("status_timestamp_after")
    return {
        "owner": principal,
        "context": request.context_id,
        "state": int(request.status),
        "after": max(request.status_timestamp_after.ToNanoseconds(), 0) if dated else UNDATED,
        "before": LAST,
        "id": "",
    }


def _moment(text: str) -> int:
    """RFC 3339 as nanoseconds since 1970. Raises ValueError."""
    if not text:
        return UNDATED
    stamp = Timestamp()
    stamp.FromJsonString(text)
    moment: int = stamp.ToNanoseconds()
    return moment


def _state(name: str) -> int:
    """A state's number. Raises ValueError."""
    return int(TaskState.Value(name)) if name else 0
