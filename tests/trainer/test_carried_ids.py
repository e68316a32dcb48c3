"""Ids that a proxy carries on, before a real template and a tiny model: `continuation=bridge`."""

import pytest
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from odradek.infra.bus import MemoryAppender
from odradek.infra.tokens import Claims, mint
from odradek.proxy.app import Proxy, serving
from odradek.proxy.settings import ProxySettings
from odradek.schemas import codec
from odradek.schemas.events import TurnsEvent
from odradek.streams.continuity import Continuity
from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.engine.tiny import CHATML

pytestmark = pytest.mark.torch
KEY = "k" * 32
EPISODES, TURNS = 6, 5
DROPPING = CHATML.replace(
    "<|im_end|>\n", "{{ '' if message['role'] == 'assistant' else '<|im_end|>' }}\n"
)
"""Drops the end token behind a reply, which the model sampled."""
THINKING = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] if loop.last or message['role'] != 'assistant' else 'said' }}",
)
"""Rewrites a reply once something follows it."""


async def played(small, mode, *, stream=False):
    """Episodes in which an agent sends each reply back; gives each one's turns."""
    log = MemoryAppender()
    async with TestServer(small.app()) as server:
        settings = ProxySettings(
            port=0, engine_url=str(server.make_url("")), continuation=mode, shutdown_s=0.1
        )
        async with serving(Proxy(settings, log, keys=[KEY])) as url:
            for episode in range(EPISODES):
                await _conversation(f"{url}/e/e{episode}/v1", f"e{episode}", stream=stream)
    episodes = {}
    for record in log.on("rl.turns.v1"):
        turn = codec.decode(record.value, TurnsEvent)
        episodes.setdefault(turn.episode_id, []).append(turn)
    return list(episodes.values())


async def _conversation(url, episode, *, stream):
    messages = [{"role": "user", "content": "Guess a number from 1 to 3."}]
    token = mint(Claims(sub=episode), [KEY])
    async with AsyncOpenAI(base_url=url, api_key=token, max_retries=0) as client:
        for _ in range(TURNS):
            ask = {"model": "policy", "messages": messages, "max_tokens": 12}
            if stream:
                chunks = [c async for c in await client.chat.completions.create(**ask, stream=True)]
                text = "".join(
                    choice.delta.content or "" for chunk in chunks for choice in chunk.choices
                )
            else:
                reply = await client.chat.completions.create(**ask)
                text = reply.choices[0].message.content
            messages = [
                *messages,
                {"role": "assistant", "content": text},
                {"role": "user", "content": "low"},
            ]


def sequences(turns):
    """How many runs of tokens the assembler makes of an episode."""
    continuity = Continuity()
    for turn in turns:
        continuity.add(turn)
    return len(continuity.sequences())


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
    rendered = [sequences(turns) for turns in await played(small(DROPPING), "render")]
    bridged = await played(small(DROPPING), "bridge", stream=stream)
    assert [TURNS] * EPISODES == rendered
    assert [1] * EPISODES == [sequences(turns) for turns in bridged]
    assert {"new": EPISODES, "": EPISODES * (TURNS - 1)} == reasons(bridged)


def reasons(episodes):
    """How often each reason stands on a turn."""
    found = {}
    for turn in (turn for turns in episodes for turn in turns):
        assert turn.continuation.mode == ("render" if turn.continuation.reason else "bridge")
        found[turn.continuation.reason] = found.get(turn.continuation.reason, 0) + 1
    return found


@pytest.mark.parametrize("mode", ["render", "bridge"])
async def test_a_template_that_only_appends_needs_no_help(small, mode):
    """One sequence either way."""
    assert [1] * EPISODES == [sequences(turns) for turns in await played(small(), mode)]


async def test_a_template_that_rewrites_replies_falls_back_and_says_so(small):
    """Each call goes out rendered, with the first index at which the renderings differ."""
    episodes = await played(small(THINKING), "bridge")
    assert {"new": EPISODES, "not_prefix_monotonic": EPISODES * (TURNS - 1)} == reasons(episodes)
    assert all(turn.continuation.index is not None for turns in episodes for turn in turns[1:])
    assert all(TURNS == sequences(turns) for turns in episodes)
