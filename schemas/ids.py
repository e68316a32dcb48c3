"""Deterministic ids: a repeat of the same work makes the same names.

Everything derives from (task, sample, attempt), so a process that dies and repeats
a send, or a broker that delivers twice, changes nothing downstream.
"""

import itertools
import struct
import uuid
from functools import lru_cache

NAMESPACE = uuid.UUID("6f64726a-6465-5b00-8000-6b61666b6131")
"""The UUIDv5 namespace of all ids that Odradek makes."""

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Hash a key as Kafka's default partitioner does.

    Returns an unsigned 32-bit number. Follows `Utils.murmur2` of the Java client; aiokafka and
    librdkafka's `murmur2_random` agree with it.
    """
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length - length % 4
    for word in struct.unpack(f"<{whole // 4}I", data[:whole]):
        k = word * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def key_text(key: bytes | None) -> str | None:
    """A record's key as text. Bytes that are no UTF-8 survive as lone surrogates (PEP 383).

    No id inside an event holds a surrogate, so such a key equals none; `key_bytes` gives it back
    bit for bit.
    """
    return None if key is None else key.decode(errors="surrogateescape")


def key_bytes(key: str | None) -> bytes | None:
    """The bytes of a key as it stood, or will stand, on the topic."""
    return None if key is None else key.encode(errors="surrogateescape")


def key_shown(key: str | None) -> str | None:
    """A key for people and for JSON: what is no UTF-8 is escaped."""
    raw = key_bytes(key)
    return None if raw is None else raw.decode(errors="backslashreplace")


@lru_cache(maxsize=16_384)
def partition_for(key: str, partitions: int) -> int:
    """The partition that every client puts `key` on, of `partitions` in all."""
    return (murmur2(key.encode(errors="surrogateescape")) & 0x7FFFFFFF) % partitions


def task_id(item: str, epoch: int, run: str) -> str:
    """A fresh task id for `item`: unique per run and epoch, the same when published again."""
    return str(uuid.uuid5(NAMESPACE, f"task/{run}/{epoch}/{item}"))


def repeat_id(task: str) -> str:
    """The id of the task that repeats a task: the same however often the repeat is made."""
    return str(uuid.uuid5(NAMESPACE, f"repeat/{task}"))


def message_id(task: str, sample: int) -> str:
    """The id of the A2A message that asks for sample `sample` of a task."""
    return str(uuid.uuid5(NAMESPACE, f"message/{task}/{sample}"))


def child_message_id(parent: str, number: int, *, partitions: int) -> str:
    """The id of the `number`-th A2A message by which a parent's agent asks another one.

    The first UUIDv5 of (parent, number, n) on the partition of the parent's id. The child's episode
    id follows from the message's partition (see `episode_id`), so both stories have one order.

    Args:
        parent: The parent's episode id.
        number: Counts the messages of this parent, from 0.
        partitions: Of the installation's topics.
    """
    home = partition_for(parent, partitions)
    return _first_on(home, partitions, f"child/{parent}/{number}")


def episode_id(message: str, attempt: int, *, partition: int, partitions: int) -> str:
    """The A2A task id (= episode id) of an attempt at a message.

    The first UUIDv5 of (message, attempt, n) that murmur2 puts on the partition on which the
    request arrived, so that whatever follows under this key reaches the same owner.
    """
    return _first_on(partition, partitions, f"episode/{message}/{attempt}")


def _first_on(partition: int, partitions: int, name: str) -> str:
    """The first UUIDv5 of (name, n) on a partition: one draw for each partition, on average."""
    draws = (str(uuid.uuid5(NAMESPACE, f"{name}/{n}")) for n in itertools.count())
    return next(draw for draw in draws if partition_for(draw, partitions) == partition)
