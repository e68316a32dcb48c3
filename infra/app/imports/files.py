"""Recordings in files: JSON lines, or Parquet, some records at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.infra.app.imports.format import FORMATS, detected
from odradek.infra.app.imports.recording import Recording
from odradek.infra.errors import BadRecording, ImportRefused

LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a line; no record of the topics is nearly as long."""
ROWS: Final = 64
"""Rows of a Parquet file that are held at once."""


class BadLine(Struct, frozen=True):
    """A record that makes no episode."""

    path: str
    line: int
    """Of the file, or of its rows, from 1."""
    why: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path}, line {self.line}: {self.why}"


class ImportFile(Struct, frozen=True):
    """A file, and the format that it is in."""

    path: Path
    format: str

    @classmethod
    def of(cls, path: Path, format_: str = "") -> "ImportFile":
        """A file whose format is given, or that of its first record.

        Raises ImportRefused, OSError.
        """
        if path.is_dir():
            raise ImportRefused(f"{path} is a folder: name files of JSON lines or Parquet")
        if format_:
            return cls(path, format_)
        for line, record in _records(path):
            if isinstance(record, BadLine):
                raise ImportRefused(f"{record}; say --format if the other lines are sound")
            return cls(path, detected(record, f"{path}, line {line},"))
        raise ImportRefused(f"{path} holds no records")

    def recordings(self) -> Iterator[tuple[int, Recording] | BadLine]:
        """Every episode with the line that it begins at, and every record that makes none.

        Where an episode is several records, the file's are held in memory.
        """
        format_ = FORMATS[self.format]
        waiting: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
        for line, record in _records(self.path):
            if isinstance(record, BadLine):
                yield record
                continue
            try:
                key = self._key(record)
                if key is None:
                    yield line, format_.parse([record])
                else:
                    waiting.setdefault(key, []).append((line, record))
            except BadRecording as error:
                yield BadLine(str(self.path), line, str(error))
        yield from self._together(waiting.values())

    def _key(self, record: dict[str, Any]) -> Any:
        """Which episode a record is part of; None where it is one. Raises BadRecording."""
        format_ = FORMATS[self.format]
        if not format_.fits(record):
            raise BadRecording(f"it is no record of the format {self.format}")
        return None if format_.key is None else format_.key(record)

    def _together(self, groups: Any) -> Iterator[tuple[int, Recording] | BadLine]:
        for group in groups:
            line = group[0][0]
            try:
                yield line, FORMATS[self.format].parse([record for _, record in group])
            except BadRecording as error:
                yield BadLine(str(self.path), line, str(error))


Lines = Iterator[tuple[int, Any]]


def _records(path: Path) -> Lines:
    """Line numbers, and objects or what is wrong with the line."""
    return _rows(path) if path.suffix == ".parquet" else _lines(path)


def _lines(path: Path) -> Lines:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST):
            number += 1
            if len(line) == LONGEST and not line.endswith(b"\n"):
                yield number, BadLine(str(path), number, f"it has more than {LONGEST} bytes")
                while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                    pass
                continue
            if line.strip():
                yield number, _decoded(path, number, line)


def _decoded(path: Path, number: int, line: bytes) -> Any:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return BadLine(str(path), number, f"it is no JSON: {error}")
    if not isinstance(record, dict):
        return BadLine(str(path), number, "it is no JSON object")
    return record


def _rows(path: Path) -> Lines:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ImportRefused(
            f".parquet needs {error.name}: pip install 'odradek[datasets]', or import JSON lines"
        ) from error
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=ROWS)
            yield from enumerate((row for each in batches for row in each.to_pylist()), start=1)
    except pa.ArrowInvalid as error:
        raise ImportRefused(f"{path} is no Parquet file that can be read: {error}") from error
