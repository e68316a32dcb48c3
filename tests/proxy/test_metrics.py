"""What a call leaves in the metrics."""

import pytest

from odradek.infra.runtime import metrics
from odradek.infra.runtime.metrics import signals

CHAT = {"gen_ai.operation.name": "chat"}


@pytest.fixture
def taken(monkeypatch):
    """What goes into histograms: (name, value, attributes)."""
    found = []

    class Exported:
        def __init__(self, name):
            self.name = name

        def record(self, value, attributes):
            found.append((self.name, value, attributes))

    for metric in metrics.SIGNALS:
        if metric.kind == "histogram":
            monkeypatch.setitem(signals._histograms, metric.name, Exported(metric.name))
    return found


async def test_a_call_is_measured_from_its_request_to_its_end(bench, taken):
    """Its turn, its tokens, how long it took, and of a stream when the first token was there."""
    before = signals.total(metrics.TURNS)
    stream = await bench.ask("hi", stream=True)
    [chunk async for chunk in stream]
    (turn,) = bench.turns()
    assert before + 1 == signals.total(metrics.TURNS)
    usage, found = turn.usage, {name: (value, more) for name, value, more in taken}
    assert {"input": usage.prompt_tokens, "output": usage.completion_tokens} == {
        more["gen_ai.token.type"]: value
        for name, value, more in taken
        if name == metrics.TOKEN_USAGE.name
    }
    took, first = found[metrics.CALL_S.name], found[metrics.FIRST_CHUNK_S.name]
    assert [CHAT, CHAT] == [took[1], first[1]]
    assert 0 < first[0] <= took[0]


async def test_a_call_that_fails_says_by_which_code(bench, engine, taken):
    """A fixed word, as the caller has it."""
    engine.mode = "drop"
    body = {"model": "m", "messages": []}
    await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert [{**CHAT, "error.type": "engine_broke"}] == [
        more for name, _, more in taken if name == metrics.CALL_S.name
    ]
