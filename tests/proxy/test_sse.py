"""The parser of event streams, over any way of splitting the bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.proxy.errors import StreamGarbled
from odradek.proxy.wire.sse import Parser

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
DATA = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=20)


@st.composite
def streams(draw):
    """(bytes of a stream, data of its events)."""
    text, expected = "", []
    for _ in range(draw(st.integers(0, 5))):
        end = draw(LINE_ENDS)
        lines = draw(st.lists(DATA, min_size=1, max_size=3))
        for line in lines:
            if draw(st.booleans()):
                text += ": a comment" + end
            if draw(st.booleans()):
                text += "id: 3" + end
            text += "data: " + line + end
        text += end
        expected.append("\n".join(lines).encode())
    return text.encode(), expected


@given(stream=streams(), cuts=st.lists(st.integers(0, 400), max_size=20))
def test_splitting_changes_nothing(stream, cuts):
    """The same data comes out however bytes are split, and the raw bytes are the input again."""
    data, expected = stream
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parser = Parser()
    events = [e for a, b in itertools.pairwise(at) for e in parser.feed(data[a:b])]
    assert expected == [event.data for event in events if event.data is not None]
    assert data == b"".join(event.raw for event in events) + parser.rest


@given(stream=streams())
def test_one_byte_at_a_time_is_the_worst_way(stream):
    """Splits fall inside UTF-8, inside `data:` and between CR and LF."""
    data, expected = stream
    parser = Parser()
    events = [event for byte in data for event in parser.feed(bytes([byte]))]
    assert expected == [event.data for event in events if event.data is not None]


@given(st.binary(max_size=300))
def test_any_bytes_give_events_and_no_errors(data):
    """Garbage has no data, and is passed on as it came."""
    parser = Parser()
    events = parser.feed(data)
    assert data == b"".join(event.raw for event in events) + parser.rest


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": only a comment\n\n", [None]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"event: x\ndata: a\n\n", [b"a"]),
        (b"data: a\r\n\r\ndata: b\r\r", [b"a", b"b"]),
        (b"data: never ended\n", []),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a", None]),
        (b"data:  a \n\ndata:  a \ndata: b\n\n", [b" a ", b" a \nb"]),
    ],
)
def test_cases_of_the_standard(data, expected):
    """As the WHATWG standard says."""
    assert expected == [event.data for event in Parser().feed(data)]


def test_an_event_beyond_the_bound_is_refused():
    """An engine cannot fill our memory with one event."""
    with pytest.raises(StreamGarbled):
        Parser(max_event=10).feed(b"data: too long for that")
    assert [] == Parser(max_event=10).feed(b"data: just")
