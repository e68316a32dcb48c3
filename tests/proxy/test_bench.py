"""The benchmark of the proxy measures what it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.bench.harness import cpu_profile, raw_http
from odradek.infra.app.bench.harness.mock_engine import chunks, reply
from odradek.infra.app.bench.harness.site import EPISODE_TURNS, EPISODES, Episodes
from odradek.infra.runtime.episode_tokens import new_key
from odradek.proxy.wire.reply import StreamCapture, whole


def test_the_wire_waits_for_the_last_chunk():
    """Of a chunked answer, whatever number of them has come."""
    pieces = raw_http.streamed([b'{"a":1}', b'{"b":0}'])
    whole = b"".join(pieces)
    for size in range(len(whole)):
        assert raw_http.message(whole[:size]) is None
    head, body, length = raw_http.message(whole + b"next")
    assert (len(whole), 3) == (length, body.count(b"data: "))
    assert b"chunked" in head


def test_the_mock_engines_stream_is_the_same_turn():
    """A token a chunk, with the same ids and words as the whole reply."""
    streamed = StreamCapture()
    ends = [streamed.feed(chunk) for chunk in chunks(1, 1000, 64)]
    (found,), (same,) = streamed.captured(), whole(reply(1, 1000, 64))
    assert [False] * 64 + [True] == ends
    assert (same.prompt, same.completion, same.versions) == (
        found.prompt,
        found.completion,
        found.versions,
    )


@given(st.binary(max_size=50), st.binary(max_size=20))
def test_the_wire_waits_for_a_whole_message(body, rest):
    """However much of it is there."""
    request = raw_http.request("/x", "h", body)
    for size in range(len(request)):
        assert raw_http.message(request[:size]) is None
    assert raw_http.message(request + rest)[1:] == (body, len(request))


def test_the_mock_engines_reply_is_a_whole_turn():
    """With as many ids as it says, and all that training needs."""
    (found,) = whole(reply(1, 1000, 64))
    assert (1000, 64) == (len(found.prompt) // 4, len(found.completion.ids) // 4)
    assert not found.untrainable
    assert len(found.versions) == 1


def test_episodes_that_are_over_are_sealed_once():
    """When a call of a later wave has been made, and not those of that wave."""
    episodes = Episodes(new_key())
    made = {episodes.address(number)[0] for number in range(EPISODES * EPISODE_TURNS)}
    assert [] == episodes.over()
    episodes.address(EPISODES * EPISODE_TURNS)
    sealed = {path for path, _ in episodes.over()}
    assert {path.replace("v1/chat/completions", "seal") for path in made} == sealed
    assert [] == episodes.over()


@pytest.mark.parametrize(
    ("file", "function", "part"),
    [
        ("/lib/aiohttp/client.py", "_request", "towards the engine"),
        ("/lib/aiohttp/web_protocol.py", "start", "towards the agent"),
        ("/lib/aiokafka/producer/sender.py", "_send", "the log"),
        ("/r/proxy/.view/odradek/proxy/dialects/chat.py", "trim", "taken out of the reply"),
        ("/r/proxy/.view/odradek/proxy/dialects/chat.py", "ask", "request and reply read"),
        ("/r/proxy/.view/odradek/proxy/episodes/episode.py", "enter", "the call"),
        ("/r/proxy/.view/odradek/infra/app/cli/run/proxy.py", "command", "event loop"),
        ("/r/proxy/.venv/lib/python3.11/asyncio/locks.py", "acquire", ""),
        ("/lib/aiohttp/streams.py", "read", ""),
    ],
)
def test_code_is_known_to_belong_to_a_part(file, function, part):
    """Libraries that work for several parts count for whoever called them."""
    assert part == cpu_profile.part_of_function(file, function)


@pytest.mark.broker
def test_the_figures_have_the_promised_keys(broker, monkeypatch):
    """Nothing is lost on the way, and CPU is counted."""
    from odradek.infra.app.bench import proxy

    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)

    figures = proxy.run(repeats=1, calls=40, workloads=("stream",), parts=True)
    assert {"prompt_ids": 1000, "sampled": 64} == figures["payload"]
    assert figures["durability"] == "required"
    assert figures["times_bare"]["c32"] > 0
    for name in ("direct", "bare", "proxy"):
        for load in ("c1", "c32"):
            assert {"p50_ms", "p99_ms", "per_s", "cpu_ms"} <= set(figures[name][load])
    assert figures["proxy"]["c32"]["cpu_ms"] > 0
    assert figures["added_p50_ms"] > 0
    assert {"the log", "towards the engine"} <= set(figures["parts_us"]["bare"])
    assert {"the call", "towards the agent"} <= set(figures["parts_us"]["proxy"])
    for found in (figures, figures["workloads"]["stream"]):
        assert (0, 0, 0) == (found["lost"], found["duplicated"], found["spoiled"])
