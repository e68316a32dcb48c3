"""Appends recordings to the log: each once, however often the same files are imported.

A first pass reads the files and writes nothing, so a bad line ends an import before it has begun.
Then the writer takes over from any import before it, which can write nothing from then on. So what
`rl.episodes.v1` holds after that is all that there is, and what it lacks is appended.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.imports.episodes import EpisodeNames, ImportedEpisode, imported
from odradek.infra.app.imports.files import BadLine, ImportFile
from odradek.infra.bus import BusSettings, FencedWriter, require_topics, to_end
from odradek.infra.errors import BadRecording, ImportRefused
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Purpose
from odradek.schemas.topics import CONVERSATIONS, EPISODES

GROUP: Final = "import"
"""Names the transactions: one import at a time."""
AT_ONCE: Final = 256
"""Episodes of a transaction, at most."""
BYTES: Final = 8 * 1024 * 1024
"""Bytes of a transaction, at most, but for a single larger episode."""
LISTED: Final = 20
"""Bad lines that are listed; the others are counted."""
Progress = Callable[[str, int], None]
"""Called with what is done, and how much of it."""


class Imported(Struct):
    """What an import came to, or would come to."""

    episodes: int = 0
    """Appended."""
    trainable: int = 0
    """Those of them that have tokens and log probabilities for all replies."""
    there: int = 0
    """The log had them already."""
    bad: int = 0
    formats: dict[str, str] = {}
    """By file."""
    dry: bool = False
    lines: list[BadLine] = []
    """The first of the bad lines."""


class _Named(Struct):
    episode_id: str = ""


_NAMED: Final = codec.head_reader(_Named)


async def import_files(
    bus: BusSettings,
    paths: Sequence[Path],
    *,
    format_: str = "",
    agent: str = "",
    purpose: Purpose = "train",
    skip_bad: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda _what, _n: None,
    at: Callable[[str], None] | None = None,
) -> Imported:
    """Append the episodes of files that the log does not have.

    Args:
        bus: Where Kafka is.
        paths: Files of JSON lines or Parquet.
        format_: One of `FORMATS`; by default that of each file's first record.
        agent: In place of those that the records name.
        purpose: Of their tasks.
        skip_bad: Import the other lines where some make no episode.
        dry_run: Read and count; write nothing.
        progress: Hears how far it is.
        at: Called at each crash point of a transaction.

    Raises:
        ImportRefused: A file is of no format, or a line makes no episode. Nothing was written.
        TopicMissing: The topics are not there.
        PartitionLost: Another import has begun since; what was written stays, and it goes on.
        LogUnavailable: Kafka went away; the same command goes on where it stopped.
    """
    files = [ImportFile.of(path, format_) for path in paths]
    reading = _Reading(files, {"agent": agent, "purpose": purpose})
    result = Imported(formats={str(file.path): file.format for file in files}, dry=dry_run)
    wanted: dict[str, bool] = {}
    records = 0
    for each in reading.episodes():
        if isinstance(each, BadLine):
            result.bad += 1
            if len(result.lines) < LISTED:
                result.lines.append(each)
        else:
            records += 1
            wanted.setdefault(each.episode_id, each.trainable)
        progress("lines read", 1)
    if result.bad and not skip_bad:
        raise ImportRefused(_refusal(result))
    await require_topics(bus, [EPISODES.name, CONVERSATIONS.name])
    if dry_run:
        new = wanted.keys() - await _there(bus, wanted, progress)
        result.episodes, result.there = len(new), records - len(new)
        result.trainable = sum(wanted[name] for name in new)
        return result
    writer = FencedWriter(bus, GROUP, 0, at=at)
    await writer.start()
    try:
        # An import that died may have left a transaction open: `start` has aborted it, so this
        # reading comes to an end, and nobody adds an episode of a file behind it but us.
        there = await _there(bus, wanted, progress)
        await _write(writer, reading, there, result, progress)
    finally:
        await writer.aclose()
    return result


class _Reading:
    """Reads the files from their beginnings: the same names each time."""

    def __init__(self, files: Sequence[ImportFile], more: dict[str, Any]) -> None:
        self._files = files
        self._more = more

    def episodes(self) -> Iterator[ImportedEpisode | BadLine]:
        names = EpisodeNames()
        for file in self._files:
            names.begin_file()
            for each in file.recordings():
                if isinstance(each, BadLine):
                    yield each
                    continue
                line, recording = each
                try:
                    name = names.name(recording)
                    yield imported(recording, name, file.format, **self._more)
                except BadRecording as error:
                    yield BadLine(str(file.path), line, str(error))


async def _there(bus: BusSettings, wanted: Container[str], progress: Progress) -> set[str]:
    """Those of the episodes that the log has."""
    there: set[str] = set()
    async with aclosing(to_end(bus, EPISODES.name)) as records:
        async for record in records:
            progress("records of the log looked at", 1)
            try:
                name = _NAMED(record.value).episode_id
            except InvalidRecord:
                continue  # no event of ours: the grouper makes it a dead letter
            if name in wanted:
                there.add(name)
    return there


async def _write(
    writer: FencedWriter,
    reading: _Reading,
    there: set[str],
    result: Imported,
    progress: Progress,
) -> None:
    chunk: list[ImportedEpisode] = []
    size = 0
    for each in reading.episodes():
        if isinstance(each, BadLine):
            continue
        if each.episode_id in there:
            result.there += 1
            continue
        there.add(each.episode_id)  # also where another file has it, too
        if chunk and (len(chunk) >= AT_ONCE or size + each.size > BYTES):
            await _commit(writer, chunk, result, progress)
            chunk, size = [], 0
        chunk.append(each)
        size += each.size
    if chunk:
        await _commit(writer, chunk, result, progress)


async def _commit(
    writer: FencedWriter,
    chunk: list[ImportedEpisode],
    result: Imported,
    progress: Progress,
) -> None:
    # If we die above the commit in here, the log has none of the chunk, and the next import
    # appends it. If we die below it, the log has all of it, and the next import sees that.
    # An episode and its words are in one chunk, so none is ever without the other.
    await writer.write(*(record for each in chunk for record in each.records))
    result.episodes += len(chunk)
    result.trainable += sum(each.trainable for each in chunk)
    progress("episodes", len(chunk))


def _refusal(result: Imported) -> str:
    listed = "\n".join(f"  {line}" for line in result.lines)
    more = f"\n  and {result.bad - len(result.lines)} more" if result.bad > LISTED else ""
    return (
        f"{result.bad} records make no episode, so nothing was imported: mend them, or leave them "
        f"out with --skip-bad\n{listed}{more}"
    )
