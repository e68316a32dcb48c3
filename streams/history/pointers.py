"""Following pointers: the episodes of batches, and which of them are gone."""

from collections.abc import Iterable

from msgspec import Struct

from odradek.infra.bus import RecordAddress, RecordLookup
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode, Pointer


class LostEpisode(Struct, frozen=True):
    """An episode that a pointer names and that cannot be read any more."""

    episode_id: str
    why: str


def address_of(pointer: Pointer) -> RecordAddress:
    """Where a pointer leads."""
    return RecordAddress(pointer.topic, pointer.partition, pointer.offset)


def shown(address: RecordAddress) -> str:
    """TOPIC/PARTITION/OFFSET, as batches name their origin."""
    return f"{address.topic}/{address.partition}/{address.offset}"


async def deleted(lookup: RecordLookup, batch: Batch) -> LostEpisode | None:
    """The first episode of a batch that retention has deleted, told by offsets alone."""
    for pointer in batch.episodes:
        bounds = await lookup.bounds(pointer.topic)
        where = shown(address_of(pointer))
        if not bounds:
            return LostEpisode(pointer.episode_id, f"{where}: there is no such topic any more")
        if await lookup.forgotten(address_of(pointer)):
            first = bounds[pointer.partition][0]
            return LostEpisode(
                pointer.episode_id, f"retention has deleted {where}; the log begins at {first}"
            )
    return None


async def episodes(
    lookup: RecordLookup, wanted: Iterable[Pointer]
) -> dict[RecordAddress, Episode | LostEpisode]:
    """The episodes that pointers lead to, by address; each is held against its digest."""
    wanted = list(wanted)
    records = await lookup.records(address_of(pointer) for pointer in wanted)
    found: dict[RecordAddress, Episode | LostEpisode] = {}
    for pointer in wanted:
        at = address_of(pointer)
        record = records.get(at)
        where = shown(at)
        if record is None or record.value is None:
            found[at] = LostEpisode(pointer.episode_id, f"{where} holds no record")
        elif codec.digest(record.value) != pointer.digest:
            found[at] = LostEpisode(
                pointer.episode_id, f"{where} has another digest than its pointer"
            )
        else:
            try:
                found[at] = codec.decode(record.value, Episode)
            except InvalidRecord as error:
                found[at] = LostEpisode(pointer.episode_id, f"{where} is no episode: {error}")
    return found
