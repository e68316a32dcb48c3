"""The codec gives back what it was given and refuses everything else by name."""

import math
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas import codec, events
from odradek.schemas.arrays import pack_floats, pack_ids, unpack_floats, unpack_ids
from odradek.schemas.errors import InvalidRecord

names = st.text(min_size=1, max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
raws = json_values.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))


@st.composite
def turns(draw):
    """Turns with arrays of matching lengths and ordered version spans."""
    completion = draw(st.lists(st.integers(0, 2**32 - 1), max_size=8))
    logprobs = draw(st.lists(finite, min_size=len(completion), max_size=len(completion)))
    cut = draw(st.integers(0, len(completion)))
    return events.Turn(
        episode_id=draw(names),
        turn_id=draw(names),
        writer=draw(names),
        seq=draw(st.integers(0, 2**31)),
        request=events.Request(messages=tuple(draw(st.lists(raws, max_size=3)))),
        reply=events.Reply(message=draw(raws), finish_reason=draw(st.none() | names)),
        prompt=events.Prompt(ids=pack_ids(draw(st.lists(st.integers(0, 2**32 - 1), max_size=8)))),
        completion=events.Completion(ids=pack_ids(completion), logprobs=pack_floats(logprobs)),
        versions=(
            events.VersionSpan(1, 0, cut),
            events.VersionSpan(2, cut, len(completion)),
        ),
        disconnected=draw(st.booleans()),
    )


@given(turns())
@settings(deadline=None)
def test_a_turn_survives_the_round_trip(turn):
    """What is decoded equals what was encoded, bit for bit."""
    assert turn == codec.decode(codec.encode(turn), events.TurnsEvent)


@given(
    st.builds(
        events.Reward,
        episode_id=names,
        component=names,
        value=finite,
        source=names,
        explanation=st.text(max_size=20),
    )
    | st.builds(events.EpisodeSealed, episode_id=names, outcome=st.sampled_from(events.Outcome))
    | st.builds(events.EpisodeAborted, episode_id=names, retry=st.booleans())
    | st.builds(
        events.EpisodeOpened,
        episode_id=names,
        task_id=names,
        agent=names,
        input=raws,
        sample=st.integers(0, 9),
        group_size=st.integers(0, 9),
    )
)
@settings(deadline=None)
def test_every_event_of_the_turns_topic_survives_the_round_trip(event):
    """What is decoded equals what was encoded."""
    assert event == codec.decode(codec.encode(event), events.TurnsEvent)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_give_an_event_or_invalid_record(data):
    """No input raises anything but the domain's own error."""
    try:
        codec.decode(data, events.TurnsEvent)
    except InvalidRecord as error:
        assert error.reason


@given(json_values)
@settings(deadline=None)
def test_any_json_gives_an_event_or_invalid_record(value):
    """No JSON raises anything but the domain's own error."""
    if isinstance(value, dict):
        value["type"] = "turn"
    with pytest.raises(InvalidRecord):
        codec.decode(msgspec.json.encode(value), events.TurnsEvent)


GOOD = {"type": "turn", "episode_id": "e", "turn_id": "t", "writer": "w", "seq": 0}


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("tombstone", None),
        ("not_json", b""),
        ("not_json", b'{"type":"turn"'),
        ("not_json", b'{"type":"tick","writer":"\xff\xfe"}'),
        ("unknown_type", b'{"type":"surprise"}'),
        ("bad_schema", b"[]"),
        ("bad_schema", msgspec.json.encode({**GOOD, "seq": -1})),
        ("bad_schema", msgspec.json.encode({**GOOD, "seq": "0"})),
        ("bad_schema", b'{"type":"turn","episode_id":"e","turn_id":"t","writer":"w","seq":1e25}'),
        (
            "bad_schema",
            b'{"type":"episode_sealed","episode_id":"e","n_turns":9999999999999999999999}',
        ),
        ("not_json", b'{"type":"turn","episode_id":"e","request":{"messages":["\\ud800"]}}'),
        ("not_json", b'{"type":"turn","episode_id":"e","request":{"messages":["\xff"]}}'),
        ("not_json", b'{"type":"tick","nobody looks here":"\xff"}'),
        ("bad_schema", msgspec.json.encode({**GOOD, "episode_id": ""})),
        (
            "not_json",
            b'{"type":"reward","episode_id":"e","component":"c","value":NaN,"source":"s"}',
        ),
        ("too_deep", b'{"type":"turn","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        ("too_deep", b"[" * 200_000),
        ("bad_array", msgspec.json.encode({**GOOD, "completion": {"ids": "AAAA"}})),
        (
            "bad_array",
            msgspec.json.encode(
                {**GOOD, "completion": {"ids": "AAAAAA==", "logprobs": "AADAfwAAwH8="}}
            ),
        ),
        (
            "bad_array",
            msgspec.json.encode(
                {**GOOD, "completion": {"ids": "AAAAAA==", "logprobs": "AADAfw=="}}
            ),
        ),
        ("bad_array", msgspec.json.encode({**GOOD, "versions": [[1, 0, 5]]})),
    ],
)
def test_bad_records_are_refused_with_their_reason(reason, value):
    """Each kind of bad record has a name that stands in its dead letter."""
    with pytest.raises(InvalidRecord) as caught:
        codec.decode(value, events.TurnsEvent)
    assert reason == caught.value.reason


@pytest.mark.parametrize("size", [0, 4097, 10**9, 10**25])
@pytest.mark.parametrize("kind", ["group_opened", "batch"])
def test_a_group_is_no_larger_than_whoever_closes_it_can_count(kind, size):
    """One of 10**18 samples would be counted for ever, and its partition stand still."""
    value = f'{{"type":"{kind}","task_id":"t","group_size":{size}}}'.encode()
    with pytest.raises(InvalidRecord) as caught:
        codec.decode(value, events.GroupOpened | events.Batch)
    assert "bad_schema" == caught.value.reason


def test_a_value_over_the_limit_is_not_parsed():
    """The size is judged before the content."""
    with pytest.raises(InvalidRecord) as caught:
        codec.decode(b"x" * 101, events.TurnsEvent, max_bytes=100)
    assert "too_large" == caught.value.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_cannot_be_written(value):
    """NaN would come out as null and poison a group far from its source."""
    with pytest.raises(InvalidRecord):
        codec.encode(events.Reward(episode_id="e", component="c", value=value, source="s"))
    with pytest.raises(InvalidRecord):
        pack_floats([value])


@pytest.mark.parametrize("ids", [[-1], [2**32], [1.5]])
def test_token_ids_outside_uint32_cannot_be_written(ids):
    """A wrapped id would be another token."""
    with pytest.raises(InvalidRecord):
        pack_ids(ids)


@given(st.lists(st.integers(0, 2**32 - 1)), st.lists(finite))
@settings(deadline=None)
def test_arrays_survive_the_round_trip(ids, floats):
    """Ids and log probabilities come back as they went."""
    assert ids == unpack_ids(pack_ids(ids)).tolist()
    assert floats == unpack_floats(pack_floats(floats)).tolist()


@pytest.mark.parametrize("before", ["", '"' + "x" * 2000 + '",'], ids=["short", "long"])
@pytest.mark.parametrize("bracket", ["[]", "{}"])
def test_depth_has_the_same_bound_in_short_and_in_long_texts(before, bracket):
    """As deep as the limit passes, beside any number of shallow ones, and one deeper does not."""
    opening, closing = bracket if bracket == "[]" else ('{"a":', "}")
    for depth, shallow in ((3, 0), (3, 9), (2, 1)):
        text = "[" + before + f"{bracket}," * shallow + opening * depth + "1" + closing * depth
        codec.check_depth(f"{text}]".encode(), depth + 1)
        with pytest.raises(InvalidRecord, match="too_deep"):
            codec.check_depth(f"{text}]".encode(), depth)


def test_depth_counts_brackets_outside_strings_only():
    """A message full of brackets is no nesting bomb."""
    text = '\\"' + "[{" * 500 + '"'
    value = msgspec.json.encode({**GOOD, "error": text})
    assert text == codec.decode(value, events.TurnsEvent).error


def test_headers_follow_cloudevents():
    """A record of ours is a CloudEvent in binary mode with a trace."""
    reward = events.Reward(episode_id="e", component="c", value=1.0, source="s")
    made = codec.headers(
        reward, source="/judge", subject="e", event_id="e/c", traceparent="00-a-b-01"
    )
    assert {
        "ce_specversion": "1.0",
        "ce_type": "odradek.reward.v1",
        "ce_source": "/judge",
        "ce_id": "e/c",
        "ce_subject": "e",
        "content-type": "application/json",
        "traceparent": "00-a-b-01",
    } == {name: codec.header(made, name) for name, _ in made if name != "ce_time"}


@given(st.integers(0, 4_000_000_000_000))
def test_the_time_of_an_event_is_now_to_the_millisecond(now):
    """As RFC 3339 has it, whatever the second."""
    reward = events.Reward(episode_id="e", component="c", value=1.0, source="s")
    with patch("time.time", lambda: (now + 0.5) / 1000):
        made = codec.headers(reward, source="/judge", subject="e", event_id="e/c")
    stamp = codec.header(made, "ce_time")
    assert stamp.endswith("Z")
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now) == (
        datetime.fromisoformat(stamp)
    )
