"""From the log to rows: the batches that a selection takes, their episodes, and their words."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.datasets.episodes import episode_row
from odradek.infra.app.datasets.files import RowFile, row_file
from odradek.infra.app.datasets.messages import dpo_row, kto_row, sft_row
from odradek.infra.app.datasets.preferences import (
    WantedEpisode,
    best_and_worst,
    each_episode,
)
from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings, RecordLookup, event_of
from odradek.schemas.events import Conversation, Episode, Pointer
from odradek.schemas.topics import CONVERSATIONS
from odradek.streams.errors import HistoryGone
from odradek.streams.history import Selection
from odradek.streams.history import pointers as following
from odradek.streams.history.batches import BatchChoice, choose
from odradek.streams.history.imports import choose_imported

AT_ONCE: Final = 64
"""Episodes that are read together."""
Progress = Callable[[int, int], None]
"""Called with how many episodes are behind us, and how many there are."""


class ExportedRows(Struct):
    """The result of an export."""

    rows: int = 0
    batches: int = 0
    left_out: dict[str, int] = {}
    """Why how many chosen episodes, or pairs of them, are no row."""


async def export(
    bus: BusSettings,
    selection: Selection,
    format_: str,
    out: Path,
    *,
    source: str = "",
    skip_missing: bool = False,
    overwrite: bool = False,
    imported: bool = False,
    archive: Archive | None = None,
    progress: Progress = lambda _done, _all: None,
) -> ExportedRows:
    """Write the chosen episodes as rows of a format.

    Memory holds the pointers of the chosen episodes; tokens and words pass through.

    Args:
        bus: Where Kafka is.
        selection: Which batches and episodes.
        format_: One of `FORMATS`.
        out: `.jsonl`, `.parquet`, or a folder for `datasets`.
        source: Where the batches stand; see `choose`.
        skip_missing: Leave out batches of which an episode is gone.
        overwrite: Whether `out` may be there.
        imported: Those that were imported in place of those in batches; see `choose_imported`.
        archive: Read what the log no longer has.
        progress: Hears how far it is.

    Raises:
        ExportRefused: The file cannot be written.
        HistoryGone: Retention has deleted an episode that is meant.
        HistoryUnknown, ReplayRefused, TopicMissing: See `choose`.
    """
    if imported:
        choice = await choose_imported(bus, selection, archive=archive)
    else:
        choice = await choose(
            bus, selection, source=source, skip_missing=skip_missing, pointers=True, archive=archive
        )
    file = row_file(out, format_, overwrite=overwrite)
    counts: Counter[str] = Counter()
    with ExitStack() as failed:
        failed.callback(file.abort)  # after ctrl-C as well: half a file is no file
        async with looking_back(bus, archive) as lookup:
            if format_ == "episodes":
                rows = await _tokens(lookup, choice, file, progress)
            else:
                rows = await _words(lookup, choice, format_, file, counts, progress)
        failed.pop_all()
    file.close()
    return ExportedRows(rows, len(choice.taken), dict(counts))


async def _tokens(
    lookup: RecordLookup, choice: BatchChoice, file: RowFile, progress: Progress
) -> int:
    pairs = [(batch.offset, pointer) for batch in choice.taken for pointer in batch.pointers]
    for at in range(0, len(pairs), AT_ONCE):
        part = pairs[at : at + AT_ONCE]
        found = await following.episodes(lookup, [pointer for _, pointer in part])
        for batch, pointer in part:
            episode = found[following.address_of(pointer)]
            if not isinstance(episode, Episode):
                raise HistoryGone(f"episode {pointer.episode_id} is gone ({episode.why})")
            file.write(episode_row(batch, pointer, episode))
        progress(at + len(part), len(pairs))
    return len(pairs)


async def _words(
    lookup: RecordLookup,
    choice: BatchChoice,
    format_: str,
    file: RowFile,
    counts: Counter[str],
    progress: Progress,
) -> int:
    wanted = (each_episode if format_ == "sft" else best_and_worst)(_groups(choice))
    if wanted.equal:
        counts["groups whose rewards are equal"] = wanted.equal
    making = _Rows(format_, file, counts)
    total = len(wanted.episodes)
    async with aclosing(lookup.whole(CONVERSATIONS.name)) as records:
        async for record in records:
            if record.key not in wanted.episodes:
                continue
            conversation: Conversation | None = event_of(
                record, Conversation, max_bytes=CONVERSATIONS.max_bytes
            )
            if conversation is None:
                continue
            making.take(conversation, wanted.episodes.pop(record.key))
            progress(total - len(wanted.episodes), total)
            if not wanted.episodes:
                break
    if wanted.episodes:
        counts["episodes whose conversation retention has deleted"] = len(wanted.episodes)
    return making.rows


def _groups(choice: BatchChoice) -> Iterator[tuple[str, tuple[Pointer, ...]]]:
    for batch in choice.taken:
        yield batch.task_id, batch.pointers


class _Rows:
    """Makes rows of conversations as they come; keeps one of a pair until the other is there."""

    def __init__(self, format_: str, file: RowFile, counts: Counter[str]) -> None:
        self.rows = 0
        self._format = format_
        self._file = file
        self._counts = counts
        self._halves: dict[str, tuple[Conversation, WantedEpisode]] = {}

    def take(self, conversation: Conversation, wanted: WantedEpisode) -> None:
        if self._format == "dpo":
            self._pair(conversation, wanted)
            return
        row = (sft_row if self._format == "sft" else kto_row)(conversation, wanted)
        self._write(row, "episodes without a reply")

    def _pair(self, conversation: Conversation, wanted: WantedEpisode) -> None:
        other = self._halves.pop(wanted.pair, None)
        if other is None:
            self._halves[wanted.pair] = conversation, wanted
            return
        ours = conversation, wanted
        chosen, rejected = (ours, other) if wanted.role == "chosen" else (other, ours)
        self._write(dpo_row(chosen, rejected), "pairs whose prompts differ")

    def _write(self, row: dict[str, Any] | None, why_not: str) -> None:
        if row is None:
            self._counts[why_not] += 1
            return
        self._file.write(row)
        self.rows += 1
