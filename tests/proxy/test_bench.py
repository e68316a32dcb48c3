"""The benchmark of the proxy measures what it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.bench import wire
from odradek.infra.bench.engine import reply
from odradek.proxy.capture import whole


@given(st.binary(max_size=50), st.binary(max_size=20))
def test_the_wire_waits_for_a_whole_message(body, rest):
    """However much of it is there."""
    request = wire.request("/x", "h", body)
    for size in range(len(request)):
        assert wire.message(request[:size]) is None
    assert wire.message(request + rest)[1:] == (body, len(request))


def test_the_mock_engines_reply_is_a_whole_turn():
    """With as many ids as it says, and all that training needs."""
    found = whole(reply(1, 1000, 64))
    assert (1000, 64) == (len(found.prompt) // 4, len(found.completion.ids) // 4)
    assert not found.untrainable
    assert len(found.versions) == 1


@pytest.mark.broker
def test_the_figures_have_the_promised_keys(broker, monkeypatch):
    """Nothing is lost on the way, and CPU is counted."""
    from odradek.infra.bench import proxy

    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setattr(proxy, "WARM_UP", 20)
    figures = proxy.run(repeats=1, calls=100)
    assert {"prompt_ids": 1000, "sampled": 64} == figures["payload"]
    assert figures["durability"] == "required"
    for name in ("direct", "proxy"):
        for load in ("c1", "c32"):
            assert {"p50_ms", "p99_ms", "per_s", "cpu_ms"} <= set(figures[name][load])
    assert figures["proxy"]["c32"]["cpu_ms"] > 0
    assert figures["added_p50_ms"] > 0
    assert (0, 0, 0) == (figures["lost"], figures["duplicated"], figures["spoiled"])
