"""A stub engine with vLLM's surface whose tokens anyone can compute again, and a proxy before it."""

import msgspec

from tests.support.engines.stub_engine import END, ROLES, StubEngine, listening, prompt_ids
from tests.support.proxy.proxy_bench import KEY, Bench
from tests.support.proxy.proxy_fixtures import bench, engine, make

__all__ = [
    "END",
    "KEY",
    "ROLES",
    "Bench",
    "StubEngine",
    "bench",
    "engine",
    "listening",
    "make",
    "prompt_ids",
]


def whole_messages(turns):
    """Each turn's messages put together again from the deltas, by turn id; brute force."""
    history, found = {}, {}
    for turn in turns:
        request = turn.request
        before = history[request.base][: request.prefix_len] if request.base else []
        found[turn.turn_id] = before + [msgspec.json.decode(m) for m in request.messages]
        history[turn.turn_id] = [*found[turn.turn_id], msgspec.json.decode(turn.reply.message)]
    return found


def whole_prompts(turns):
    """Each turn's prompt ids put together again from the deltas, by turn id; brute force."""
    history, found = {}, {}
    for turn in turns:
        prompt = turn.prompt
        before = history[prompt.base][: 4 * prompt.prefix_len] if prompt.base else b""
        found[turn.turn_id] = before + prompt.ids
        history[turn.turn_id] = found[turn.turn_id] + turn.completion.ids
    return found
