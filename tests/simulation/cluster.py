"""The broker: partitions, transactions with fencing, what committed readers see.

Follows Kafka's transaction protocol v0, which aiokafka speaks: the coordinator answers EndTxn once
the decision stands, and writes its markers to the partitions and to the offsets afterwards, each
in its own time. Until all stand, InitProducerId and the next transaction are told to come again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.loop import SimLoop

EPOCH = 1_700_000_000.0
"""The broker's Unix time when the simulation begins."""
TRANSACTION_TIMEOUT_S = 10.0


class Again(Exception):
    """The broker says: not yet, come again."""


class Message(NamedTuple):
    """A record as aiokafka's consumers show it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int
    timestamp_type: int = 1


class Transaction:
    """What one epoch of a transactional producer writes together."""

    def __init__(self) -> None:
        self.partitions: set[Partition] = set()
        self.offsets: dict[str, dict[TopicPartition, OffsetAndMetadata]] = {}
        self.committed: bool | None = None
        """None while nothing is decided."""
        self.pending = 0
        """Markers that are not written yet."""


class Entry(NamedTuple):
    """A place in a partition: a record, or the marker that ends a transaction there."""

    message: Message | None
    transaction: Transaction | None


class Partition:
    """An ordered log with its open transactions."""

    def __init__(self, topic: str, number: int, append_time: bool) -> None:
        self.name = TopicPartition(topic, number)
        self.append_time = append_time
        self.log: list[Entry] = []
        self.open: dict[Transaction, int] = {}
        """Open transactions and where each began."""
        self.batches: dict[Any, int] = {}
        """Batches of idempotent producers and where they stand: a repeat stands there already."""

    @property
    def stable(self) -> int:
        """The last stable offset: committed readers see nothing from here on."""
        return min(self.open.values(), default=len(self.log))

    @property
    def last(self) -> int:
        """Offset of the last committed record, -1 if there is none."""
        for at in range(len(self.log) - 1, -1, -1):
            message, transaction = self.log[at]
            if message is not None and (transaction is None or transaction.committed):
                return at
        return -1

    def read(self, position: int, *, committed: bool, most: int) -> tuple[list[Message], int]:
        """Messages from `position` on, and the position after them."""
        end = self.stable if committed else len(self.log)
        found: list[Message] = []
        while position < end and len(found) < most:
            message, transaction = self.log[position]
            position += 1
            if message is None or (committed and transaction and not transaction.committed):
                continue
            found.append(message)
        return found, position


class Writer:
    """A transactional id, as the coordinator knows it."""

    def __init__(self) -> None:
        self.epoch = -1
        self.transaction: Transaction | None = None
        self.last: tuple[int, bool] | None = None
        """Epoch and decision of the last transaction: the answer to a repeated EndTxn."""


class Cluster:
    """One broker.

    Args:
        loop: Gives the time.
        rng: Decides how long markers take.
        sizes: Partitions of each topic.
        append_time: Topics whose timestamps the broker gives.
    """

    def __init__(
        self, loop: SimLoop, rng: Random, sizes: dict[str, int], append_time: Iterable[str]
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.topics = {
            name: [Partition(name, number, name in set(append_time)) for number in range(size)]
            for name, size in sizes.items()
        }
        self.writers: defaultdict[str, Writer] = defaultdict(Writer)
        self.offsets: defaultdict[str, dict[TopicPartition, OffsetAndMetadata]] = defaultdict(dict)
        self.waiting: defaultdict[str, dict[Any, Callable[[], None]]] = defaultdict(dict)
        self.down_until = 0.0
        self.slow_markers = 0.0
        """Chance that a marker takes seconds."""
        self.appended_at = 0.0
        self.on_append: Callable[[Message], None] = lambda _: None
        self.on_commit: Callable[[str, TopicPartition, OffsetAndMetadata], None] = lambda *_: None

    def now(self) -> float:
        """The broker's Unix time."""
        return EPOCH + self.loop.time()

    def partition(self, where: TopicPartition) -> Partition:
        """A partition by its name."""
        return self.topics[where.topic][where.partition]

    # -- producing

    def produce(self, where: TopicPartition, batch: Any, records: list[Any]) -> int:
        """Append a batch of an idempotent producer; a repeat changes nothing."""
        partition = self.partition(where)
        if batch in partition.batches:
            return partition.batches[batch]
        return self._append(partition, batch, records, None)

    def _append(
        self, partition: Partition, batch: Any, records: list[Any], transaction: Transaction | None
    ) -> int:
        first = partition.batches[batch] = len(partition.log)
        stamp = int(self.now() * 1000)
        for key, value, headers, created in records:
            message = Message(
                *partition.name,
                len(partition.log),
                key,
                value,
                tuple(headers),
                stamp if partition.append_time else created,
            )
            partition.log.append(Entry(message, transaction))
            self.on_append(message)
        if transaction is None:
            self._wake(partition)
        return first

    def _wake(self, partition: Partition) -> None:
        self.appended_at = self.loop.time()
        wakers = self.waiting.pop(partition.name.topic, None)
        for wake in list(wakers.values()) if wakers else ():
            wake()

    # -- transactions

    def init_producer(self, name: str) -> int:
        """A new epoch: the one before is fenced, and its open transaction aborted."""
        writer = self.writers[name]
        if writer.transaction is not None:
            if writer.transaction.committed is None:
                writer.epoch += 1
                self._end(writer, commit=False)
            raise Again
        writer.epoch += 1
        writer.last = None
        return writer.epoch

    def _current(self, name: str, epoch: int) -> tuple[Writer, Transaction]:
        """The open transaction of a producer; begun if there is none."""
        writer = self.writers[name]
        if epoch != writer.epoch:
            raise ProducerFenced
        if writer.transaction is None:
            writer.transaction = Transaction()
            self.loop.call_later(
                TRANSACTION_TIMEOUT_S,
                self._time_out,
                writer,
                writer.transaction,
                context=self.loop.root,
            )
        elif writer.transaction.committed is not None:
            raise Again
        return writer, writer.transaction

    def _time_out(self, writer: Writer, transaction: Transaction) -> None:
        if writer.transaction is transaction and transaction.committed is None:
            writer.epoch += 1
            self._end(writer, commit=False)

    def produce_in(
        self, name: str, epoch: int, where: TopicPartition, batch: Any, records: list[Any]
    ) -> int:
        """Append a batch within a transaction. Raises ProducerFenced."""
        partition = self.partition(where)
        if batch in partition.batches:
            return partition.batches[batch]
        _, transaction = self._current(name, epoch)
        transaction.partitions.add(partition)
        partition.open.setdefault(transaction, len(partition.log))
        return self._append(partition, batch, records, transaction)

    def offsets_in(
        self,
        name: str,
        epoch: int,
        group: str,
        offsets: dict[TopicPartition, OffsetAndMetadata],
    ) -> None:
        """Commit a group's offsets with the transaction. Raises ProducerFenced."""
        _, transaction = self._current(name, epoch)
        transaction.offsets.setdefault(group, {}).update(offsets)

    def end_transaction(self, name: str, epoch: int, *, commit: bool) -> None:
        """Decide. Returns once the decision stands; the markers follow. Raises ProducerFenced."""
        writer = self.writers[name]
        if epoch != writer.epoch:
            raise ProducerFenced
        if writer.transaction is None or writer.transaction.committed is not None:
            if writer.last != (epoch, commit):
                raise ProducerFenced
            return
        self._end(writer, commit=commit)

    def _end(self, writer: Writer, *, commit: bool) -> None:
        transaction = writer.transaction
        assert transaction is not None
        transaction.committed = commit
        writer.last = (writer.epoch, commit)
        places: list[Any] = sorted(transaction.partitions, key=lambda one: one.name)
        places += [(group, offsets) for group, offsets in transaction.offsets.items()]
        transaction.pending = len(places)
        if not places:
            writer.transaction = None
        for place in places:
            delay = self.rng.uniform(0, 0.02)
            if self.rng.random() < self.slow_markers:
                delay = self.rng.uniform(0.1, 3.0)
            self.loop.call_later(
                delay, self._mark, writer, transaction, place, context=self.loop.root
            )

    def _mark(self, writer: Writer, transaction: Transaction, place: Any) -> None:
        if self.loop.time() < self.down_until:
            self.loop.call_at(
                self.down_until,
                self._mark,
                writer,
                transaction,
                place,
                context=self.loop.root,
            )
            return
        if isinstance(place, Partition):
            place.log.append(Entry(None, transaction))
            place.open.pop(transaction, None)
            self._wake(place)
        elif transaction.committed:
            self.commit(*place)
        transaction.pending -= 1
        if not transaction.pending:
            writer.transaction = None

    # -- offsets

    def commit(self, group: str, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Make a group's offsets the ones that its members begin at."""
        for where, offset in offsets.items():
            self.offsets[group][where] = offset
            self.on_commit(group, where, offset)

    # -- what everybody may see in the end

    def committed(self, topic: str) -> list[Message]:
        """The committed records of a topic, partition by partition."""
        return [
            message
            for partition in self.topics[topic]
            for message in partition.read(0, committed=True, most=1 << 60)[0]
        ]
