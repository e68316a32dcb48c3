"""The bus: one suite over the real and the in-memory appender, topics, dead letters, errors."""

import asyncio
import gc
import json
import random

import pytest
from aiokafka import codec as packing
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    MemoryAppender,
    Record,
    check_position,
    clients,
    dead_letter,
    delete_topics,
    ensure_topics,
    letter,
    require_topics,
    rows,
)
from odradek.infra.bus.topics import settings_of
from odradek.infra.client import records
from odradek.infra.errors import (
    BusError,
    KafkaUnreachable,
    LogUnavailable,
    PositionLost,
    ProjectError,
    TopicMismatch,
    TopicMissing,
)
from odradek.schemas import codec, ids
from odradek.schemas.topics import DLQ, TASKS


@pytest.fixture
async def kafka_appender(bus):
    """The real appender, with the topics of tasks and dead letters there."""
    await ensure_topics(bus, [(TASKS.name, TASKS), (DLQ.name, DLQ)])
    made = await KafkaAppender.connect(bus)
    yield made
    await made.aclose()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
def appender(request):
    """Both appenders, one after the other."""
    if request.param == "memory":
        return MemoryAppender(partitions=3)
    return request.getfixturevalue("kafka_appender")


async def test_appending_says_where_the_record_stands(appender):
    """Offsets of a partition count up from zero, and the key decides the partition."""
    addresses = [await appender.append(TASKS.name, key="k", value=b"1") for _ in range(3)]
    assert [0, 1, 2] == [address.offset for address in addresses]
    assert {ids.partition_for("k", 3)} == {address.partition for address in addresses}


async def test_a_partition_can_be_told(appender):
    """A record without a key goes where its sender says."""
    address = await appender.append(TASKS.name, key=None, value=b"1", partition=2)
    assert 2 == address.partition


async def test_a_memory_appender_can_be_told_to_fail():
    """Tests of what happens without a log need a log that is away."""
    appender = MemoryAppender()
    appender.failing = True
    with pytest.raises(LogUnavailable):
        await appender.append(TASKS.name, key="k", value=b"1")


@pytest.mark.broker
async def test_a_record_comes_back_with_headers_and_time(bus):
    """What was appended is what is read: key, value, headers, bare topic name."""
    await ensure_topics(bus, [(TASKS.name, TASKS)])
    appender = await KafkaAppender.connect(bus)
    await appender.append(TASKS.name, key="k", value=b"v", headers=(("h", b"1"),))
    await appender.aclose()
    (record,) = [
        record async for record in records(TASKS.name, since="beginning", follow=False, bus=bus)
    ]
    assert (TASKS.name, "k", b"v", "1") == (
        record.topic,
        record.key,
        record.value,
        codec.header(record.headers, "h"),
    )
    assert record.timestamp > 1e9


@pytest.mark.broker
async def test_a_record_over_the_limit_is_an_error_not_a_hang(bus):
    """The client says at once that no topic of ours takes such a record."""
    await ensure_topics(bus, [(TASKS.name, TASKS)])
    appender = await KafkaAppender.connect(bus)
    with pytest.raises(BusError, match="too large"):
        await appender.append(TASKS.name, key="k", value=b"x" * 20_000_000)
    await appender.aclose()


@pytest.mark.broker
async def test_a_record_that_the_broker_refuses_takes_no_later_one_with_it(bus):
    """Aiokafka's producer is out of order on that partition from then on; ours is replaced."""
    await ensure_topics(bus, [(TASKS.name, TASKS)])
    appender = await KafkaAppender.connect(bus)
    value = random.Random(0).randbytes(2 * TASKS.max_bytes)
    await appender.append(TASKS.name, key="k", value=b"first")
    with pytest.raises(BusError, match="too large"):
        await appender.append(TASKS.name, key="k", value=value)
    sent = [await appender.append(TASKS.name, key="k", value=b"%d" % n) for n in range(3)]
    await appender.aclose()
    assert [1, 2, 3] == [address.offset for address in sent]
    assert 1 == appender.renewed


@pytest.mark.broker
async def test_the_largest_allowed_record_passes(bus):
    """The client's, the topic's and the broker's limits agree, even if nothing compresses."""
    await ensure_topics(bus, [(DLQ.name, DLQ)])
    appender = await KafkaAppender.connect(bus)
    value = random.Random(0).randbytes(DLQ.max_bytes)
    await appender.append(DLQ.name, key="k", value=value)
    await appender.aclose()
    found = [r.value async for r in records(DLQ.name, since="beginning", follow=False, bus=bus)]
    assert [value] == found


@pytest.mark.broker
async def test_topics_are_created_once_with_the_tables_settings(bus):
    """Applying twice changes nothing, and the broker holds what the table says."""
    wanted = rows(["hilo"], ["c"])
    created = await ensure_topics(bus, wanted)
    assert sorted(bus.topic(name) for name, _ in wanted) == created
    assert [] == await ensure_topics(bus, wanted)
    held = await settings_of(bus, "rl.turns.v1")
    assert "LogAppendTime" == held["message.timestamp.type"]
    assert "compact" == (await settings_of(bus, "rl.policies.v1"))["cleanup.policy"]
    assert created == await delete_topics(bus)


@pytest.mark.broker
async def test_a_topic_with_other_partitions_is_refused(bus):
    """Ids were made for another number: nothing may go on."""
    await ensure_topics(bus, [(TASKS.name, TASKS)])
    other = bus.model_copy(update={"topic_partitions": bus.topic_partitions + 1})
    with pytest.raises(TopicMismatch, match="ODRADEK_TOPIC_PARTITIONS"):
        await ensure_topics(other, [(TASKS.name, TASKS)])


@pytest.mark.broker
async def test_a_missing_topic_is_told_with_the_command_that_makes_it(bus):
    """Whoever forgot to create the topics reads how to."""
    with pytest.raises(TopicMissing, match="odradek topics apply"):
        await require_topics(bus, [TASKS.name])


@pytest.mark.broker
async def test_a_producer_does_not_forget_a_topic_that_it_knew_before_it_wrote(bus):
    """Or what waits there to be sent would be given up when it writes to one made later."""
    await ensure_topics(bus, [(TASKS.name, TASKS)])
    async with clients.running(clients.producer(bus), bus) as client:
        known, later = bus.topic(TASKS.name), bus.topic(DLQ.name)
        await client.client.force_metadata_update()
        assert client.client.cluster.partitions_for_topic(known)
        await ensure_topics(bus, [(DLQ.name, DLQ)])
        for topic in (known, later):
            await client.partitions_for(topic)
        assert client.client.cluster.partitions_for_topic(known)


async def test_a_request_on_a_connection_that_was_reset_is_an_error_to_try_again_after():
    """Uvloop's transport raises RuntimeError then, which ended a producer for ever."""

    class Gone:
        def is_closing(self):
            return True

    class Writer:
        transport = Gone()

        def write(self, data):
            raise RuntimeError("the handler is closed")

        def close(self): ...

    connection = AIOKafkaConnection(host="127.0.0.1", port=1)
    connection._writer = Writer()
    with pytest.raises(KafkaConnectionError, match="broken"):
        connection.send(MetadataRequest([]))


async def test_a_client_whose_broker_is_away_ends_all_the_same(monkeypatch):
    """Within a bound, and without an error in the place of what ended the process."""
    monkeypatch.setattr(clients, "CLOSE_S", 0.05)

    class Stuck:
        def __init__(self, leak):
            self.leak = leak

        async def stop(self):
            if self.leak:
                raise asyncio.CancelledError
            await asyncio.Event().wait()

    for leak in (False, True):
        async with asyncio.timeout(2):
            await clients.close(Stuck(leak))


async def test_a_kafka_that_is_not_there_is_one_clear_error():
    """The line names the address and a way out."""
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:1.*odradek kafka start"):
        await KafkaAppender.connect(BusSettings(bootstrap_servers="127.0.0.1:1"))


def test_no_kafka_at_all_is_one_clear_error(monkeypatch):
    """Without an address the line says what to set."""
    monkeypatch.delenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(ProjectError, match="ODRADEK_KAFKA_BOOTSTRAP_SERVERS"):
        BusSettings().connection()


def test_a_login_passes_to_every_client():
    """SASL settings reach the client's arguments, and the password is masked when printed."""
    settings = BusSettings(
        bootstrap_servers="a:1,b:2",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="me",
        sasl_password="hush-hush",
    )
    made = settings.connection()
    assert ["a:1", "b:2"] == made["bootstrap_servers"]
    assert ("SCRAM-SHA-512", "me", "hush-hush") == (
        made["sasl_mechanism"],
        made["sasl_plain_username"],
        made["sasl_plain_password"],
    )
    assert made["ssl_context"] is not None
    assert "hush" not in repr(settings)


def test_a_login_without_a_password_is_refused():
    """Half a login gets the names of the missing variables."""
    settings = BusSettings(bootstrap_servers="a:1", security_protocol="SASL_PLAINTEXT")
    with pytest.raises(ProjectError, match="ODRADEK_KAFKA_SASL_PASSWORD"):
        settings.connection()


def test_a_deleted_position_is_an_error():
    """A reader whose next record is gone stops instead of skipping."""
    from aiokafka import TopicPartition

    with pytest.raises(PositionLost, match="deleted 3 records"):
        check_position(TopicPartition("t", 0), 7, 10)
    check_position(TopicPartition("t", 0), 10, 10)
    check_position(TopicPartition("t", 0), None, 10)


async def test_a_dead_letter_keeps_the_bytes_and_says_why():
    """Original key, value and headers stay; topic, partition, offset and reason are added."""
    appender = MemoryAppender()
    record = Record("rl.turns.v1", 2, 7, "k", b"\x00broken", (("ce_id", b"1"),))
    await dead_letter(appender, record, "not_json", "at 0", consumer="assembler")
    (letter,) = appender.on(DLQ.name)
    assert ("k", b"\x00broken") == (letter.key, letter.value)
    told = {name: codec.header(letter.headers, name) for name, _ in letter.headers}
    assert {
        "ce_id": "1",
        "dlq-topic": "rl.turns.v1",
        "dlq-partition": "2",
        "dlq-offset": "7",
        "dlq-reason": "not_json",
        "dlq-detail": "at 0",
        "dlq-consumer": "assembler",
        "dlq-attempts": "1",
    } == told


def test_a_letter_that_dies_again_counts_its_attempts():
    """A replayed dead letter is told from a first one."""
    _, once = letter(Record("t", 0, 0, "k", b""), "r")
    _, twice = letter(Record("t", 0, 1, "k", b"", once), "r")
    assert "2" == codec.header(twice, "dlq-attempts")
    assert len(once) == len(twice)


def test_records_are_packed_lightly():
    """With zstd at level 1, which aiokafka has no option for."""
    none, zstd, head = 0, 4, 61  # kinds of packing; bytes before the records

    def batch(kind):
        builder = DefaultRecordBatchBuilder(2, kind, 0, -1, -1, -1, 2**20)
        for n in range(100):
            builder.append(n, 0, b"key", json.dumps({"n": n, "text": "words " * n}).encode(), [])
        return bytes(builder.build())[head:]

    assert packing.zstd_encode(batch(none), level=1) == batch(zstd)
    assert packing.zstd_encode(batch(none), level=3) != batch(zstd)


@pytest.mark.broker
@pytest.mark.parametrize("kind", [clients.producer, clients.consumer, clients.admin])
async def test_a_start_that_is_cancelled_leaves_no_connection_open(bus, kind):
    """At whatever moment: over the first connection metadata are asked for, then others open."""
    begun = asyncio.get_running_loop().time()
    await clients.close(await _started(kind(bus), bus))
    whole_s = asyncio.get_running_loop().time() - begun
    for part in range(20):
        starting = asyncio.create_task(_started(kind(bus), bus))
        await asyncio.sleep(whole_s * part / 20)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if not starting.cancelled():
            await clients.close(starting.result())
    assert [] == [
        one for one in gc.get_objects() if isinstance(one, AIOKafkaConnection) and one.connected()
    ]


async def _started(client, bus):
    await clients.start(client, bus)
    return client
