"""Ids that a proxy carries on, before a real template and a tiny model: `continuation=bridge`."""

import pytest
from aiohttp.test_utils import TestServer

from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.engine.tiny import CHATML
from tests.support.proxy.agent_episodes import EPISODES, TURNS, played, reasons, sequences

pytestmark = pytest.mark.torch
DROPPING = CHATML.replace(
    "<|im_end|>\n", "{{ '' if message['role'] == 'assistant' else '<|im_end|>' }}\n"
)
"""Drops the end token behind a reply, which the model sampled."""
THINKING = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] if loop.last or message['role'] != 'assistant' else 'said' }}",
)
"""Rewrites a reply once something follows it."""


async def playing(small, mode, **more):
    """The turns of each episode that is played before this engine."""
    async with TestServer(small.app()) as server:
        return await played(str(server.make_url("")), mode, **more)


@pytest.fixture
def small(tiny):
    """A small engine over the tiny model, whose template a test may change."""

    def make(template=CHATML):
        engine = SmallEngine(EngineSettings(model=str(tiny), seed=5))
        engine._tokenizer.chat_template = template
        return engine

    return make


@pytest.mark.parametrize("stream", [False, True])
async def test_an_episode_of_a_template_that_drops_a_separator_is_one_sequence(small, stream):
    """Rendered, its episodes break in pieces; bridged, each is one."""
    rendered = [sequences(turns) for turns in await playing(small(DROPPING), "render")]
    bridged = await playing(small(DROPPING), "bridge", stream=stream)
    assert [TURNS] * EPISODES == rendered
    assert [1] * EPISODES == [sequences(turns) for turns in bridged]
    assert {"no_earlier_reply": EPISODES, "": EPISODES * (TURNS - 1)} == reasons(bridged)


@pytest.mark.parametrize("mode", ["render", "bridge"])
async def test_a_template_that_only_appends_needs_no_help(small, mode):
    """One sequence either way."""
    assert [1] * EPISODES == [sequences(turns) for turns in await playing(small(), mode)]


async def test_a_template_that_rewrites_replies_falls_back_and_says_so(small):
    """Each call goes out rendered, with the first index at which the renderings differ."""
    episodes = await playing(small(THINKING), "bridge")
    assert {
        "no_earlier_reply": EPISODES,
        "not_prefix_monotonic": EPISODES * (TURNS - 1),
    } == reasons(episodes)
    assert all(turn.continuation.index is not None for turns in episodes for turn in turns[1:])
    assert all(TURNS == sequences(turns) for turns in episodes)
