"""Dead letters can be found, read, sent again and dropped."""

import pytest

from odradek.infra.bus import KafkaAppender, Record, dead_letter, ensure_topics
from odradek.schemas.codec import header
from odradek.schemas.topics import REWARDS, TURNS
from odradek.streams.deadletter import described, drop, find, letters, place, send_again
from odradek.streams.errors import ReplayRefused
from odradek.streams.reading import to_end


@pytest.mark.parametrize("text", ["", "3", "a:1", "1:-2"])
def test_a_place_is_partition_and_offset(text):
    """As `dlq list` prints it."""
    with pytest.raises(ReplayRefused, match="PARTITION:OFFSET"):
        place(text)


@pytest.mark.broker
async def test_a_letter_is_found_sent_again_and_dropped(bus):
    """With its original bytes; what comes back a second time has two attempts."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    record = Record(TURNS.name, 1, 7, "e1", b"{", (("ce_id", b"x"),))
    await dead_letter(appender, record, "not_json", "truncated", consumer="assemble")
    await dead_letter(appender, Record(REWARDS.name, 0, 1, "e2", b"[]"), "bad_schema")
    (letter,) = [one async for one in letters(bus, reason="not_json")]
    told = described(letter)
    assert (TURNS.name, "1", "7", "not_json", "1") == tuple(
        told[name] for name in ("topic", "partition", "offset", "reason", "attempts")
    )
    assert letter == await find(bus, told["at"])
    assert TURNS.name == await send_again(appender, letter)
    (again,) = [one async for one in to_end(bus, TURNS.name)]
    assert (b"{", "e1", "x", "1") == (
        again.value,
        again.key,
        header(again.headers, "ce_id"),
        header(again.headers, "dlq-attempts"),
    )
    await dead_letter(appender, again, "not_json")
    assert ["1", "2"] == [
        described(one)["attempts"] async for one in letters(bus, topic=TURNS.name)
    ]
    await appender.aclose()
    await drop(bus, {letter.partition: letter.offset + 1})
    assert letter not in [one async for one in letters(bus)]
    with pytest.raises(ReplayRefused, match="no letter"):
        await find(bus, told["at"])
