"""Files of rows: JSON lines, Parquet, or a folder of Hugging Face `datasets`.

All write some rows at a time, so memory does not grow with their number. They write beside the
name that was asked for, and take that name at the end: half a file never looks like a whole one.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from odradek.infra.errors import ExportRefused

DATASET: Final = "dataset_info.json"
"""By which a folder of `datasets` is known."""
ROWS: Final = 500
"""Rows of a Parquet row group, and how many are kept before they are written."""


class RowFile(Protocol):
    """Takes rows."""

    def write(self, row: dict[str, Any]) -> None:
        """Add a row."""
        ...

    def close(self) -> None:
        """Write what is left, and take the name."""
        ...

    def abort(self) -> None:
        """Leave nothing behind."""
        ...


class JsonLinesFile:
    """A row a line, as UTF-8 JSON."""

    def __init__(self, path: Path, format_: str) -> None:
        del format_
        self._path, self._part = path, _beside(path)
        self._file = self._part.open("wb")

    def write(self, row: dict[str, Any]) -> None:
        """See `RowFile`."""
        self._file.write(msgspec.json.encode(row) + b"\n")

    def close(self) -> None:
        """See `RowFile`."""
        self._file.close()
        self._part.replace(self._path)

    def abort(self) -> None:
        """See `RowFile`."""
        self._file.close()
        self._part.unlink(missing_ok=True)


class ParquetFile:
    """Apache Parquet with Zstandard, a row group for every `ROWS` rows."""

    def __init__(self, path: Path, format_: str) -> None:
        import pyarrow.parquet as pq

        self._path, self._part = path, _beside(path)
        self._schema = schema_of(format_)
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """See `RowFile`."""
        self._rows.append(row)
        if len(self._rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """See `RowFile`."""
        if self._rows:
            self._flush()
        self._writer.close()
        self._part.replace(self._path)

    def abort(self) -> None:
        """See `RowFile`."""
        self._writer.close()
        self._part.unlink(missing_ok=True)


class DatasetFolder:
    """A folder that `datasets.load_from_disk` reads: rows go through a hidden Parquet file."""

    def __init__(self, path: Path, format_: str) -> None:
        import datasets

        datasets.disable_progress_bars()
        self._path = path
        self._rows = path.with_name(f".{path.name}.rows")
        self._parquet = ParquetFile(self._rows, format_)

    def write(self, row: dict[str, Any]) -> None:
        """See `RowFile`."""
        self._parquet.write(row)

    def close(self) -> None:
        """See `RowFile`."""
        from datasets import Dataset

        self._parquet.close()
        cache, part = _beside(self._rows), _beside(self._path)
        try:
            Dataset.from_parquet(str(self._rows), cache_dir=str(cache)).save_to_disk(str(part))
            if self._path.exists():  # `row_file` has seen that it is a dataset
                shutil.rmtree(self._path)
            part.replace(self._path)
        finally:
            self._rows.unlink()
            for folder in (cache, part):
                shutil.rmtree(folder, ignore_errors=True)

    def abort(self) -> None:
        """See `RowFile`."""
        self._parquet.abort()


KINDS: Final[dict[str, Callable[[Path, str], RowFile]]] = {
    ".jsonl": JsonLinesFile,
    ".parquet": ParquetFile,
    "": DatasetFolder,
}
"""By suffix."""


def row_file(path: Path, format_: str, *, overwrite: bool = False) -> RowFile:
    """What writes a file, by its suffix: `.jsonl`, `.parquet`, or none for a folder.

    What is there already stays until the new file is whole.

    Raises ExportRefused where there is no such kind, where something has that name, or where what
    it takes is not installed.
    """
    kind = KINDS.get(path.suffix)
    if kind is None:
        raise ExportRefused(
            f"{path} is no file of rows: end it in .jsonl or .parquet, or name a folder for "
            "`datasets`"
        )
    if path.exists() and not overwrite:
        raise ExportRefused(f"{path} is there already: name another, or say --overwrite")
    if path.is_dir() and (path.suffix or not (path / DATASET).is_file()):
        raise ExportRefused(f"{path} is a folder that holds something else than a dataset")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return kind(path, format_)
    except ModuleNotFoundError as error:
        raise ExportRefused(
            f"{path.suffix or 'a folder of datasets'} needs {error.name}: install "
            '"odradek[datasets]", or write .jsonl'
        ) from error


def schema_of(format_: str) -> Any:
    """The Arrow schema of a format's rows."""
    import pyarrow as pa

    call = pa.struct(
        [
            ("id", pa.string()),
            ("type", pa.string()),
            ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
        ]
    )
    message = pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("tool_calls", pa.list_(call)),
            ("tool_call_id", pa.string()),
            ("name", pa.string()),
        ]
    )
    messages = pa.list_(message)
    about = [
        ("episode_id", pa.string()),
        ("task_id", pa.string()),
        ("agent", pa.string()),
        ("reward", pa.float64()),
    ]
    span = [("start", pa.int32()), ("end", pa.int32())]
    sampled = [
        ("temperature", pa.float32()),
        ("altered_by", pa.string()),
        ("truncated", pa.bool_()),
    ]
    sequence = pa.struct(
        [
            ("ids", pa.list_(pa.int32())),
            ("logprobs", pa.list_(pa.float32())),
            ("spans", pa.list_(pa.struct([*span, *sampled]))),
            ("versions", pa.list_(pa.struct([("version", pa.int64()), *span]))),
            ("turn_ids", pa.list_(pa.string())),
            ("child", pa.string()),
        ]
    )
    fields = {
        "sft": [("messages", messages), *about],
        "kto": [("prompt", messages), ("completion", messages), ("label", pa.bool_()), *about],
        "dpo": [
            *((name, messages) for name in ("prompt", "chosen", "rejected")),
            ("task_id", pa.string()),
            *((f"{name}_episode", pa.string()) for name in ("chosen", "rejected")),
            *((f"{name}_reward", pa.float64()) for name in ("chosen", "rejected")),
        ],
        "episodes": [
            *((name, pa.string()) for name in ("episode_id", "task_id", "item", "agent")),
            *((name, pa.int32()) for name in ("sample", "attempt")),
            ("outcome", pa.string()),
            ("reward", pa.float64()),
            ("components", pa.map_(pa.string(), pa.float64())),
            ("batch", pa.int64()),
            ("topic", pa.string()),
            ("partition", pa.int32()),
            ("offset", pa.int64()),
            ("digest", pa.string()),
            ("n_turns", pa.int32()),
            ("opened_at", pa.float64()),
            ("closed_at", pa.float64()),
            ("sequences", pa.list_(sequence)),
        ],
    }
    return pa.schema(fields[format_])


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
