"""Whoever waits for a transaction hears of it, whatever it ended with."""

import asyncio
import gc

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaConnectionError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.producer.transaction_manager import TransactionManager

from odradek.infra.bus import BusSettings, FencedWriter, OutgoingRecord
from odradek.infra.errors import LogUnavailable, PartitionLost


class Producer:
    """A producer of transactions whose begin goes wrong; each waits until it is let go on."""

    def __init__(self, error):
        self.error = error
        self.go_on = asyncio.Event()

    async def begin_transaction(self):
        await self.go_on.wait()
        if self.error is not None:
            raise self.error

    async def send(self, *_, **__):
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def flush(self):
        pass

    commit_transaction = flush


def ledger_over(monkeypatch, error):
    made = Producer(error)
    monkeypatch.setattr("odradek.infra.bus.transactions.producer", lambda *_, **__: made)
    return FencedWriter(BusSettings(), "group", 0), made


ENTRY = OutgoingRecord(topic="rl.turns.v1", key="k", value=b"v")


@pytest.mark.parametrize(
    "error,heard",
    [
        (None, None),
        (ProducerFenced(), PartitionLost),
        (KafkaConnectionError(), LogUnavailable),
        (TimeoutError(), LogUnavailable),
        (ValueError("a mistake of ours"), ValueError),
    ],
)
async def test_all_who_wait_hear_how_it_ended(monkeypatch, error, heard):
    """Those of the transaction that failed, and those of the next."""
    ledger, made = ledger_over(monkeypatch, error)
    first = asyncio.create_task(ledger.write(ENTRY))
    await asyncio.sleep(0)
    later = [asyncio.create_task(ledger.write(ENTRY)) for _ in range(2)]
    await asyncio.sleep(0)
    made.go_on.set()
    async with asyncio.timeout(60):
        found = await asyncio.gather(first, *later, return_exceptions=True)
    assert [heard or type(None)] * 3 == [type(one) for one in found]


async def test_a_fence_between_two_sends_is_a_fence(monkeypatch):
    """Aiokafka tells it only of the records before; of the next it says: not in transaction."""
    ledger, made = ledger_over(monkeypatch, None)
    made.go_on.set()
    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(ProducerFenced())
    answers = iter([failed])

    async def send(*_, **__):
        if (answer := next(answers, None)) is None:
            raise IllegalOperation("Can't send messages while not in transaction")
        return answer

    made.send = send
    with pytest.raises(PartitionLost):
        await ledger.write(ENTRY, ENTRY)


async def test_a_producer_that_was_fenced_is_asked_for_nothing_more(monkeypatch):
    """A host that was frozen hears the same from each of its writes, and ends by none of them."""
    ledger, made = ledger_over(monkeypatch, ProducerFenced())
    made.go_on.set()
    with pytest.raises(PartitionLost):
        await ledger.write(ENTRY)
    made.error = AssertionError("Invalid state transition FATAL_ERROR -> IN_TRANSACTION")
    with pytest.raises(PartitionLost):
        await ledger.write(ENTRY)


async def test_who_no_longer_waits_keeps_nobody_from_hearing(monkeypatch):
    """A write that was given up is still made."""
    ledger, made = ledger_over(monkeypatch, None)
    gone, there = (asyncio.create_task(ledger.write(ENTRY)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    made.go_on.set()
    async with asyncio.timeout(60):
        await there


@pytest.mark.parametrize("how", ["fatal_error", "error_transaction"])
async def test_a_transactions_error_is_said_once(how, caplog):
    """Whoever awaits the call that fails hears it; asyncio has nothing to add."""
    gc.collect()  # what other tests have left
    caplog.clear()
    transactions = TransactionManager("group.0", 1000)
    transactions.set_pid_and_epoch(1, 1)
    transactions.begin_transaction()
    getattr(transactions, how)(ProducerFenced())
    del transactions
    gc.collect()
    assert [] == [record for record in caplog.records if record.name == "asyncio"]


async def test_a_batchs_error_is_said_to_those_who_wait_for_its_records(caplog):
    """And by asyncio to nobody, though none waits until the batch is drained."""
    gc.collect()  # what other tests have left
    caplog.clear()
    batch = MessageBatch(TopicPartition("t", 0), BatchBuilder(1000, 0), 60, 0)
    record = batch.append(b"k", b"v", None)
    batch.failure(exception=ProducerFenced())
    assert isinstance(record.exception(), ProducerFenced)
    del batch, record
    gc.collect()
    assert [] == [record for record in caplog.records if record.name == "asyncio"]
