"""An object: records of one range as Parquet, with a digest of all that they are.

The columns hold each record exactly: key, headers and value as bytes, and the time in milliseconds.
Type, episode and task stand beside them for whoever queries the files.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.infra.archive.names import ObjectName
from odradek.infra.bus import Record
from odradek.infra.errors import ArchiveDamaged, ArchiveMismatch
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.ids import key_bytes, key_text

FORMAT: Final = 1
"""Of what stands here. A reader refuses later ones."""
META: Final = "odradek."
FLAT: Final = ("type", "episode_id", "task_id")


class _Ids(Struct):
    """What queries ask for, of any event."""

    episode_id: str | None = None
    task_id: str | None = None


_IDS: Final = codec.head_reader(_Ids)
_PACK: Final = msgspec.msgpack.Encoder()


def digest_of(name: ObjectName, records: Iterable[Record]) -> str:
    """The sha256 of an object's contents: its name and each record, whatever Parquet makes of them.

    Two libraries may write other bytes for the same records; the digest stays.
    """
    digest = hashlib.sha256(_PACK.encode((FORMAT, str(name))))
    for record in records:
        parts = (_ms(record), record.appended, key_bytes(record.key), record.headers, record.value)
        digest.update(_PACK.encode((record.offset, *parts)))
    return digest.hexdigest()


def encoded(name: ObjectName, records: Sequence[Record]) -> bytes:
    """The bytes of an object. The same records make the same bytes, for one version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [_ids(record) for record in records]
    columns = {
        "offset": [record.offset for record in records],
        "timestamp": [_ms(record) for record in records],
        "appended": [record.appended for record in records],
        "key": [key_bytes(record.key) for record in records],
        "headers": [
            [{"name": header_name, "value": value} for header_name, value in record.headers]
            for record in records
        ],
        "value": [record.value for record in records],
        "type": [header(record.headers, "ce_type") for record in records],
        "episode_id": [each.episode_id for each in ids],
        "task_id": [each.task_id for each in ids],
    }
    about = {
        "format": str(FORMAT),
        "topic": name.topic,
        "partition": str(name.partition),
        "partitions": str(name.partitions),
        "first": str(name.range.first),
        "last": str(name.range.end - 1),
        "records": str(len(records)),
        "sha256": digest_of(name, records),
    }
    schema = _schema().with_metadata({META + key: value for key, value in about.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns, schema=schema),
        sink,
        compression="zstd",
        use_dictionary=["type", "task_id"],
        write_statistics=["offset", "timestamp", *FLAT],
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def decoded(name: ObjectName, data: bytes) -> tuple[Record, ...]:
    """The records of an object.

    Raises:
        ArchiveDamaged: They are not what was written, or the object is of another name.
        ArchiveMismatch: A later version wrote it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        about = {
            key.decode().removeprefix(META): value.decode()
            for key, value in (table.schema.metadata or {}).items()
        }
        number = int(about["format"])
        if number > FORMAT:
            raise ArchiveMismatch(
                f"{name} has format {number}, and this version reads {FORMAT}: install a later "
                "Odradek"
            )
        records = tuple(_records(name, table))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else repr(error)
        raise damaged(str(name), f"it cannot be read: {why}") from error
    if any(record.offset not in name.range for record in records):
        raise damaged(str(name), "a record lies outside of its range")
    if digest_of(name, records) != about.get("sha256"):
        raise damaged(str(name), "its contents do not have its sha256")
    return records


def damaged(path: str, why: str) -> ArchiveDamaged:
    """The error of an object that is not what was written, with what to do."""
    return ArchiveDamaged(
        f"{path} is damaged: {why}. Bring it back from a copy, or delete it and run `odradek "
        "archive run` while the log still holds its offsets"
    )


def _records(name: ObjectName, table: Any) -> Iterable[Record]:
    import pyarrow as pa

    times = table.column("timestamp").cast(pa.int64()).to_pylist()
    names = ("offset", "appended", "key", "headers", "value")
    columns = [table.column(column).to_pylist() for column in names]
    for ms, offset, appended, key, headers, value in zip(times, *columns, strict=True):
        yield Record(
            topic=name.topic,
            partition=name.partition,
            offset=offset,
            key=key_text(key),
            value=value,
            headers=tuple((each["name"], each["value"]) for each in headers),
            timestamp=ms / 1000,
            appended=appended,
        )


def _ms(record: Record) -> int:
    return round(record.timestamp * 1000)


def _ids(record: Record) -> _Ids:
    try:
        ids: _Ids = _IDS(record.value)
    except InvalidRecord:
        return _Ids()
    return ids


def _schema() -> Any:
    import pyarrow as pa

    pair = pa.struct([("name", pa.string()), ("value", pa.binary())])
    return pa.schema(
        [
            ("offset", pa.int64()),
            ("timestamp", pa.timestamp("ms", tz="UTC")),
            ("appended", pa.bool_()),
            ("key", pa.binary()),
            ("headers", pa.list_(pair)),
            ("value", pa.binary()),
            *((name, pa.string()) for name in FLAT),
        ]
    )
