"""An agent that plays hi-lo: an async function on the unmodified OpenAI SDK."""

from game import HiLo
from openai import AsyncOpenAI

from odradek.agents import Rollout

sdk = AsyncOpenAI(base_url="http://localhost", api_key="-")  # one pool of connections for all games


async def play(rollout: Rollout) -> None:
    """Play one game and reward what it scored; a group's samples meet the secrets in turn."""
    secrets = rollout.task.input["secrets"]
    game = HiLo(secrets[rollout.sample % len(secrets)])
    llm = sdk.with_options(base_url=rollout.base_url, api_key=rollout.api_key)
    messages = game.opening()
    while not game.over:
        reply = await llm.chat.completions.create(
            model=rollout.model, messages=messages, max_tokens=4
        )
        messages += game.answer(reply.choices[0].message.content or "")
    rollout.reward("game", game.score)
