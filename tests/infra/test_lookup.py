"""Looking records up by their addresses, and stretches by their beginning."""

import random

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from odradek.infra.bus import (
    FencedWriter,
    OutgoingRecord,
    RecordAddress,
    admin,
    ensure_topics,
    looking_up,
    running,
    to_end,
)
from odradek.schemas.topics import BATCHES, EPISODES

pytestmark = pytest.mark.broker


@pytest.fixture
async def written(bus):
    """A thousand records in transactions, so that markers stand between them; their addresses."""
    await ensure_topics(bus)
    for partition in range(3):
        writer = FencedWriter(bus, "test", partition)
        await writer.start()
        for part in range(10):
            await writer.write(
                *(
                    OutgoingRecord(
                        topic=EPISODES.name, key="x", partition=partition,
                        value=f"{partition}/{part}/{n}".encode(),
                    )
                    for n in range(40)
                )
            )  # fmt: skip
        await writer.aclose()
    return {record.address: record.value async for record in to_end(bus, EPISODES.name)}


@pytest.mark.parametrize("many", [1, 7, 300])
async def test_each_record_is_found_where_it_stands(bus, written, many):
    """Near ones and far ones, in any order; a marker, and what lies beyond the end, is none."""
    chosen = random.Random(many).sample(sorted(written, key=str), many)
    nowhere = [
        RecordAddress(EPISODES.name, 0, 40),  # the marker of a transaction
        RecordAddress(EPISODES.name, 1, 10_000),
        RecordAddress(EPISODES.name, 77, 0),
        RecordAddress("no.such.topic", 0, 0),
    ]
    async with looking_up(bus) as lookup:
        found = await lookup.records([*chosen, *nowhere, *chosen])
        assert {at: written[at] for at in chosen} == {at: one.value for at, one in found.items()}
        assert {} == await lookup.records([])


@pytest.mark.parametrize("most", [1, 30, None])
async def test_stretches_that_follow_each_other_miss_nothing(bus, written, most):
    """From any offset to the end, whatever is looked up between them."""
    async with looking_up(bus) as lookup:
        (_, end) = (await lookup.bounds(EPISODES.name))[1]
        offset, values = 100, []
        while offset < end:
            records, offset = await lookup.stretch(EPISODES.name, 1, offset, most=most)
            values += [record.value for record in records]
            if len(values) % 50 < 3:
                await lookup.records([RecordAddress(EPISODES.name, 1, 3)])
        assert [
            value for at, value in written.items() if at.partition == 1 and at.offset >= 100
        ] == values


async def test_what_was_deleted_is_left_out_and_a_missing_topic_has_no_bounds(bus, written):
    """Whoever asked says what that means."""
    async with running(admin(bus), bus) as client:
        on = TopicPartition(bus.topic(EPISODES.name), 2)
        await client.delete_records({on: RecordsToDelete(50)})
    async with looking_up(bus) as lookup:
        assert 50 == (await lookup.bounds(EPISODES.name))[2][0]
        assert [] == await lookup.bounds("no.such.topic")
        assert [(0, 0)] == await lookup.bounds(BATCHES.name)
        at = [RecordAddress(EPISODES.name, 2, offset) for offset in (49, 50)]
        assert [at[1]] == list(await lookup.records(at))
        later = 2e9
        assert (await lookup.bounds(EPISODES.name))[2][1] == await lookup.at_time(
            EPISODES.name, 2, later
        )
        assert 0 == await lookup.at_time(EPISODES.name, 0, 0.0)
