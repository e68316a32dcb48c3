"""A recording: the topics of whole runs in a file, and what is made of them.

Each line is a record: [topic, partition, offset, key, value, headers, milliseconds]. Bytes stand as
text of one character a byte (Latin-1). The first line holds the digest of the rows that a trainer
makes of each batch, in order.

    python -m tests.recorded.topics tests/recorded/0.1.0.jsonl

writes one, from simulated runs with kills, retries, children and late rewards. From a release on,
its file never changes.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from odradek.infra.bus import Record
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode
from odradek.schemas.ids import key_text
from odradek.schemas.topics import (
    BATCHES,
    CONVERSATIONS,
    DLQ,
    EPISODES,
    REVISIONS,
    REWARDS,
    STEPS,
    TURNS,
)
from odradek.trainer.feed.rows import EpisodeGroup, rows_of

TOPICS = (REWARDS, TURNS, CONVERSATIONS, EPISODES, BATCHES, REVISIONS, STEPS, DLQ)
SEEDS = (1, 3, 18)
"""Of the simulated worlds that a recording holds."""


class Recording(NamedTuple):
    """What a file holds."""

    rows: list[list[str]]
    """Of each world, the digest of the rows of each batch."""
    worlds: list[list[Record]]


def write(path: Path) -> None:
    """Run the worlds, and write what stands on their topics."""
    from tests.simulation.checks import broken
    from tests.simulation.world import World

    worlds = []
    for seed in SEEDS:
        world = World(seed)
        world.run(None)
        assert not broken(world)
        worlds.append(
            [message for topic in TOPICS for message in world.cluster.committed(topic.name)]
        )
    read = [[_record(_listed(message)) for message in world] for world in worlds]
    lines: list[Any] = [{"rows": [digests_of(world) for world in read]}]
    lines += [[at, *_listed(message)] for at, world in enumerate(worlds) for message in world]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    path.write_text(text)


def load(path: Path) -> Recording:
    """Read a file."""
    head, *lines = map(json.loads, path.read_text().splitlines())
    worlds: list[list[Record]] = [[] for _ in head["rows"]]
    for at, *listed in lines:
        worlds[at].append(_record(listed))
    return Recording(head["rows"], worlds)


def of_topic(world: Iterable[Record], topic: str) -> list[Record]:
    """The records of a topic, in their order."""
    return [record for record in world if record.topic == topic]


def digests_of(world: list[Record]) -> list[str]:
    """Of each batch with episodes, the digest of the rows that a trainer makes of it."""
    episodes = {(r.partition, r.offset): r for r in of_topic(world, EPISODES.name)}
    digests = []
    for record in of_topic(world, BATCHES.name):
        batch: Batch = codec.decode(record.value, Batch)
        if not batch.episodes:
            continue
        pairs = []
        for pointer in batch.episodes:
            found = episodes[pointer.partition, pointer.offset]
            assert codec.digest(found.value or b"") == pointer.digest
            pairs.append((pointer, codec.decode(found.value, Episode)))
        digest = hashlib.sha256(batch.digest().encode())
        for row in rows_of(EpisodeGroup(record.offset, batch, tuple(pairs)), weigh="episode"):
            for array in (row.ids, row.mask, row.logprobs):
                digest.update(array.tobytes())
            digest.update(repr((row.advantage, row.reward, row.oldest, row.weight)).encode())
        digests.append(digest.hexdigest())
    return digests


def _listed(message: Any) -> list[Any]:
    key, value = (None if each is None else each.decode("latin-1") for each in message[3:5])
    headers = [[name, text.decode("latin-1")] for name, text in message.headers]
    return [*message[:3], key, value, headers, message.timestamp]


def _record(listed: list[Any]) -> Record:
    topic, partition, offset, key, value, headers, timestamp = listed
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        key=None if key is None else key_text(key.encode("latin-1")),
        value=None if value is None else value.encode("latin-1"),
        headers=tuple((name, text.encode("latin-1")) for name, text in headers),
        timestamp=timestamp / 1000,
        appended=True,
    )


def partitions(world: Iterable[Record], topic: str) -> Iterator[tuple[int, list[Record]]]:
    """Each partition of a topic that has records."""
    records = of_topic(world, topic)
    for number in sorted({record.partition for record in records}):
        yield number, [record for record in records if record.partition == number]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
