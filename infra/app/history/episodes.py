"""Tasks, episodes and turns, looked up by their names or places."""

from typing import Any

import msgspec

from odradek.infra.app.history.rows import BatchRows, alone, completion_view
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.app.history.views import (
    EpisodeView,
    RowView,
    StepUse,
    TaskView,
    TurnView,
    UsedBatchView,
)
from odradek.infra.bus import Record, RecordAddress
from odradek.schemas import codec
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode, EpisodeOpened, Pointer, Task, Turn, TurnsEvent
from odradek.schemas.topics import BATCHES
from odradek.streams.errors import HistoryUnknown
from odradek.streams.history import names
from odradek.streams.history.pointers import address_of, shown

OF_TOKENS = ("sequences",)
ARRAYS = ("prompt", "completion", "versions")


async def episode_view(past: LogHistory, name: str) -> EpisodeView:
    """An episode by its id, or by its place as TOPIC/PARTITION/OFFSET.

    Raises HistoryUnknown, HistoryGone.
    """
    at = names.address(name)
    record, batch, since = None, None, None
    if at is not None:
        record = await names.record_at(past.lookup, at)
        episode = _decoded(record, Episode)
        name, since = episode.episode_id, episode.closed_at
    batch = await names.batch_naming(past.lookup, name, since=since)
    pointer = None if batch is None else _pointer(batch, name)
    if batch is not None and pointer is not None:
        return await _of_batch(past, batch, pointer)
    if record is None:
        record = await _unbatched(past, name, batch)
    return await _unused(past, record, batch)


async def used_batch(past: LogHistory, name: str) -> UsedBatchView:
    """A batch by its offset on the live topic, or by its place.

    Raises HistoryUnknown, HistoryGone.
    """
    at = names.address(name)
    if at is None and not (name.isascii() and name.isdigit()):
        raise HistoryUnknown(f"{name!r} is neither an offset nor TOPIC/PARTITION/OFFSET")
    return await past.batch(at or RecordAddress(BATCHES.name, 0, int(name)))


async def task_view(past: LogHistory, name: str) -> TaskView:
    """A task by its id, or by its place. Raises HistoryUnknown, HistoryGone."""
    at = names.address(name)
    if at is None:
        record = await names.task(past.lookup, name)
    else:
        record = await names.record_at(past.lookup, at)
        name = _decoded(record, Task).task_id
    since = None if record is None else record.timestamp
    batch = await names.batch_naming(past.lookup, name, since=since)
    if record is None and batch is None:
        raise HistoryUnknown(f"no task and no batch is called {name!r}")
    task = {} if record is None else _plain(_decoded(record, Task))
    place = "" if record is None else shown(record.address)
    used = None if batch is None else await past.batch(batch.address)
    return TaskView(at=place, task=task, batch=used)


async def turn_view(past: LogHistory, name: str) -> TurnView:
    """A turn by its id, or by its place. Raises HistoryUnknown."""
    at = names.address(name)
    record = await (
        names.turn(past.lookup, name) if at is None else names.record_at(past.lookup, at)
    )
    if record is None:
        raise HistoryUnknown(f"no turn is called {name!r}")
    turn = _decoded(record, Turn)
    shown_turn = _plain(turn)
    for field in ARRAYS:
        shown_turn.pop(field, None)
    return TurnView(
        at=shown(record.address),
        turn=shown_turn,
        tokens=completion_view(
            unpack_ids(turn.completion.ids),
            turn.completion.logprobs,
            turn.versions,
            past.texts(await past.rules(None)),
        ),
        prompt_base=turn.prompt.base,
        prompt_prefix=turn.prompt.prefix_len,
        prompt_ids=tuple(unpack_ids(turn.prompt.ids).tolist()),
    )


async def _of_batch(past: LogHistory, batch: Record, pointer: Pointer) -> EpisodeView:
    """An episode of a batch: its advantage is of the batch, and so are the steps that used it."""
    view = await past.batch(batch.address)
    at = address_of(pointer)
    episode = _decoded(await names.record_at(past.lookup, at), Episode)
    rows = tuple(row for row in view.batch.rows if row.episode_id == pointer.episode_id)
    return await _view(past, shown(at), episode, rows, batch=batch, used=view.used)


async def _unused(past: LogHistory, record: Record, batch: Record | None) -> EpisodeView:
    """An episode to which no batch points: excluded, repeated, or not yet grouped."""
    episode = _decoded(record, Episode)
    at = record.address
    pointer = Pointer(
        episode_id=episode.episode_id, sample=episode.sample, topic=at.topic,
        partition=at.partition, offset=at.offset, digest=codec.digest(record.value or b""),
        reward=episode.reward or 0.0,
    )  # fmt: skip
    rules = await past.rules(None)
    rows: BatchRows = alone(pointer, episode, rules.rows)
    made = rows.view(rows.rows, refused={}, texts=past.texts(rules)).rows
    return await _view(past, shown(at), episode, made, batch=batch, used=())


async def _view(
    past: LogHistory,
    place: str,
    episode: Episode,
    rows: tuple[RowView, ...],
    *,
    batch: Record | None,
    used: tuple[StepUse, ...],
) -> EpisodeView:
    head = _plain(episode)
    for field in OF_TOKENS:
        head.pop(field, None)
    story = await names.story(past.lookup, episode.episode_id, since=episode.opened_at or None)
    return EpisodeView(
        at=place,
        episode=head,
        batch_at="" if batch is None else shown(batch.address),
        used=used,
        turns=tuple(_turns(story)),
        rows=rows,
    )


def _turns(story: list[Record]) -> list[dict[str, Any]]:
    listed = []
    for record in story:
        event = _event(record)
        if isinstance(event, Turn):
            listed.append(
                {
                    "at": shown(record.address),
                    "turn_id": event.turn_id,
                    "seq": event.seq,
                    "completion_tokens": len(event.completion.ids) // 4,
                    "error": event.error,
                }
            )
    return listed


async def _unbatched(past: LogHistory, name: str, batch: Record | None) -> Record:
    """The record of an episode to which no batch points."""
    story = await names.story(past.lookup, name)
    opened = next((event for event in map(_event, story) if isinstance(event, EpisodeOpened)), None)
    if opened is not None and opened.parent:
        raise HistoryUnknown(
            f"{name} is a child: its rows are in the record of its parent, "
            f"`odradek show episode {opened.parent}`"
        )
    if opened is not None:
        task_id, since = opened.task_id, story[0].timestamp
    elif batch is not None:
        task_id, since = _decoded(batch, Batch).task_id, 0.0
    else:
        # Nobody opened it here, unless it was imported.
        found = await names.imported_episode(past.lookup, name)
        if found is None:
            raise HistoryUnknown(f"no episode is called {name!r}")
        return found
    record = await names.episode(past.lookup, name, task_id, since)
    if record is None:
        raise HistoryUnknown(f"episode {name} has begun and has no record yet, or lost it")
    return record


def _pointer(batch: Record, episode_id: str) -> Pointer | None:
    pointers = _decoded(batch, Batch).episodes
    return next((one for one in pointers if one.episode_id == episode_id), None)


def _decoded(record: Record, kind: Any) -> Any:
    try:
        return codec.decode(record.value, kind)
    except InvalidRecord as error:
        raise HistoryUnknown(
            f"{shown(record.address)} is no {kind.__name__.lower()}: {error}"
        ) from error


def _event(record: Record) -> Any:
    try:
        return codec.decode(record.value, TurnsEvent)
    except InvalidRecord:
        return None


def _plain(event: Any) -> dict[str, Any]:
    """An event as JSON has it, without defaults."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return plain
