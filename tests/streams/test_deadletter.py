"""Dead letters can be found, read, sent again and dropped."""

import json
import time

import pytest
from click.testing import CliRunner

from odradek.infra.app.cli.look.dlq import command
from odradek.infra.bus import KafkaAppender, Record, dead_letter, ensure_topics, letter, to_end
from odradek.schemas.codec import header
from odradek.schemas.ids import key_bytes, key_text, partition_for
from odradek.schemas.topics import DLQ, REWARDS, TURNS
from odradek.streams.dead_letters import described, find, letters, place, send_again
from odradek.streams.errors import ReplayRefused

NO_UTF8 = b"\xff\xfe\x00key"


@pytest.fixture
async def appender(bus):
    await ensure_topics(bus)
    made = await KafkaAppender.connect(bus)
    yield made
    await made.aclose()


@pytest.fixture
def odradek(bus, monkeypatch):
    """`odradek dlq …` on this test's bus; answers with its JSON."""
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", bus.bootstrap_servers)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)

    def run(*words):
        import asyncio
        import concurrent.futures

        def call():
            done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
            assert 0 == done.exit_code, done.output
            return json.loads(done.output)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:  # it runs a loop of its own
            return asyncio.wrap_future(pool.submit(call))

    return run


async def all_of(bus, topic):
    return [one async for one in to_end(bus, topic)]


@pytest.mark.parametrize("text", ["", "3", "a:1", "1:-2"])
def test_a_place_is_partition_and_offset(text):
    """As `dlq list` prints it."""
    with pytest.raises(ReplayRefused, match="PARTITION:OFFSET"):
        place(text)


@pytest.mark.parametrize("said", [b"two", b"-3", "²".encode(), b"9" * 5000, b""])
def test_a_count_of_attempts_that_is_none_starts_again(said):
    """A header that anybody may write must not end the process that reads it."""
    _, headers = letter(Record("t", 0, 0, "k", b"", (("dlq-attempts", said),)), "r")
    assert "1" == header(headers, "dlq-attempts")


def test_credentials_do_not_travel_with_a_letter():
    """Whatever else a record's headers hold stays."""
    own = (("Authorization", b"Bearer canary"), ("cookie", b"canary"), ("ce_id", b"x"))
    _, headers = letter(Record("t", 0, 0, "k", b"", own), "r")
    assert (("ce_id", b"x"),) == headers[:1]
    assert b"canary" not in b"".join(value for _, value in headers)


@pytest.mark.broker
async def test_a_letter_is_found_sent_again_and_dropped(bus, appender, odradek):
    """With its original bytes; what comes back a second time has two attempts."""
    record = Record(TURNS.name, 1, 7, "e1", b"{", (("ce_id", b"x"), ("none", None)))
    await dead_letter(appender, record, "not_json", "truncated", consumer="assemble")
    await dead_letter(appender, Record(REWARDS.name, 0, 1, "e2", b"[]"), "bad_schema")
    (found,) = [one async for one in letters(bus, reason="not_json")]
    told = described(found)
    assert (TURNS.name, "1", "7", "not_json", "1") == tuple(
        told[name] for name in ("topic", "partition", "offset", "reason", "attempts")
    )
    assert found == await find(bus, told["at"])
    assert TURNS.name == await send_again(appender, found, bus)
    (again,) = await all_of(bus, TURNS.name)
    assert (b"{", "e1", "x", "1", ("none", None)) == (
        again.value,
        again.key,
        header(again.headers, "ce_id"),
        header(again.headers, "dlq-attempts"),
        again.headers[1],
    )
    await dead_letter(appender, again, "not_json")
    assert ["1", "2"] == [
        described(one)["attempts"] async for one in letters(bus, topic=TURNS.name)
    ]
    dropped = await odradek("drop", f"{found.partition}:{found.offset + 1}", "--yes")
    assert {"below": {str(found.partition): found.offset + 1}} == dropped
    assert found not in await all_of(bus, DLQ.name)
    with pytest.raises(ReplayRefused, match="no letter"):
        await find(bus, told["at"])


@pytest.mark.broker
async def test_a_key_that_is_no_utf8_survives_letter_and_replay(bus, appender, odradek):
    """Bit for bit, and so back to the partition where it was."""
    key = key_text(NO_UTF8)
    await appender.append(TURNS.name, key=key, value=b"\xff")
    (record,) = await all_of(bus, TURNS.name)
    assert NO_UTF8 == key_bytes(record.key)
    await dead_letter(appender, record, "not_json")
    (told,) = (await odradek("list"))["letters"]
    assert r"\xff\xfe" in told["key"]
    assert {"sent": 1, "left": 0} == await odradek("replay", told["at"])
    first, second = await all_of(bus, TURNS.name)
    assert (first.key, first.value, first.partition) == (
        second.key,
        second.value,
        second.partition,
    )


@pytest.mark.broker
async def test_replay_keeps_the_partition_of_a_null_key_and_mends_a_wrong_one(
    bus, appender, odradek
):
    """Nobody can tell where a record without a key belongs; a key belongs in one place."""
    wrong = (partition_for("e1", 3) + 1) % 3
    for partition in range(3):
        await dead_letter(appender, Record(TURNS.name, partition, 0, None, b"{"), "wrong_key")
    await dead_letter(appender, Record(TURNS.name, wrong, 0, "e1", b"[]"), "wrong_partition")
    assert {"sent": 4, "left": 0} == await odradek("replay", "--topic", TURNS.name)
    found = await all_of(bus, TURNS.name)
    assert {0, 1, 2} == {one.partition for one in found if one.key is None}
    assert [partition_for("e1", 3)] == [one.partition for one in found if one.key == "e1"]


@pytest.mark.broker
async def test_a_value_too_large_to_put_aside_is_fetched_where_it_was_left(bus, appender, odradek):
    """Packed it came through the broker's limit; the letter says how large it is."""
    bomb = b"[" + b"0," * (9 * 1024 * 1024) + b"0]"
    client = appender._client
    client._max_request_size = 2 * len(bomb)
    record = Record(
        REWARDS.name, (await appender.append(REWARDS.name, key="e", value=bomb)).partition, 0, "e",
        bomb,
    )  # fmt: skip
    await dead_letter(appender, record, "too_large")
    (told,) = (await odradek("list"))["letters"]
    assert (len(bomb), str(len(bomb))) == (told["bytes"], told["left"])
    assert {"sent": 1, "left": 0} == await odradek("replay", "--reason", "too_large")
    assert [bomb, bomb] == [one.value for one in await all_of(bus, REWARDS.name)]


@pytest.mark.broker
async def test_letters_are_chosen_by_reason_topic_and_time(bus, appender, odradek):
    """In every verb alike; `drop --until` cuts what is older."""
    for topic, reason in ((TURNS.name, "a"), (TURNS.name, "b"), (REWARDS.name, "a")):
        await dead_letter(appender, Record(topic, 0, 0, "k", b"x"), reason)

    async def chosen(*words):
        found = (await odradek("list", *words))["letters"]
        return sorted((one["topic"], one["reason"]) for one in found)

    assert [(TURNS.name, "a")] == await chosen("--reason", "a", "--topic", TURNS.name)
    assert 3 == len(await chosen("--since", "10m"))
    assert [] == await chosen("--until", "10m")
    assert [] == await chosen("--since", "2999-01-01")
    assert {"below": {}} == await odradek("drop", "--until", "10m", "--yes")
    later = str(time.gmtime().tm_year + 1) + "-01-01"
    await odradek("drop", "--until", later, "--yes")
    assert [] == await chosen()


@pytest.mark.broker
async def test_what_died_too_often_is_left(bus, appender, odradek):
    """A record that is poison itself is not sent round for ever; --max-attempts 0 insists."""
    record = Record(TURNS.name, 0, 0, "e1", b"{", (("dlq-attempts", b"4"),))
    await dead_letter(appender, record, "not_json")
    assert {"sent": 0, "left": 1} == await odradek("replay", "--reason", "not_json")
    assert {"sent": 1, "left": 0} == await odradek("replay", "--since", "1h", "--max-attempts", "0")


@pytest.mark.broker
async def test_show_in_json_loses_nothing(bus, appender, odradek):
    """Bytes come as base64, headers as they are."""
    import base64

    await dead_letter(appender, Record(TURNS.name, 0, 0, "e1", b"\xff\x00"), "not_json")
    (told,) = (await odradek("list"))["letters"]
    shown = await odradek("show", told["at"])
    assert b"\xff\x00" == base64.b64decode(shown["value"])
    assert "not_json" == shown["headers"]["dlq-reason"]
