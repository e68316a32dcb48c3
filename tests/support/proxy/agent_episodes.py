"""Episodes that an agent plays through a proxy, before any engine, and what becomes of them."""

from openai import AsyncOpenAI

from odradek.infra.bus import MemoryAppender
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy.app import Proxy
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from odradek.schemas import codec
from odradek.schemas.events import TurnsEvent
from odradek.streams.stages.continuity import Continuity

KEY = "k" * 32
EPISODES, TURNS = 4, 4


async def played(engine_url, mode, *, stream=False):
    """Episodes in which an agent sends each reply back; gives each one's turns."""
    log = MemoryAppender()
    settings = ProxySettings(port=0, engine_url=engine_url, continuation=mode)
    async with serving(Proxy(settings, log, keys=[KEY]), shutdown_s=0.1) as url:
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


def reasons(episodes):
    """How often each reason stands on a turn."""
    found = {}
    for turn in (turn for turns in episodes for turn in turns):
        assert turn.continuation.mode == ("render" if turn.continuation.reason else "bridge")
        found[turn.continuation.reason] = found.get(turn.continuation.reason, 0) + 1
    return found
