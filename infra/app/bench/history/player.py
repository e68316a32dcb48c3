"""The agent that plays while subscribers read: two calls, and a reward."""

import aiohttp

from odradek.agents import Rollout

CALLS = 2


async def play(rollout: Rollout) -> None:
    """Call the model twice; the reward is the number of the sample."""
    messages = [{"role": "user", "content": "Which number is it? Say one from 1 to 3."}]
    headers = {"Authorization": f"Bearer {rollout.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for _ in range(CALLS):
            request = {"model": rollout.model, "messages": messages, "max_tokens": 16}
            async with http.post(f"{rollout.base_url}/chat/completions", json=request) as answer:
                answer.raise_for_status()
                reply = (await answer.json())["choices"][0]["message"]
            messages += [
                {"role": "assistant", "content": reply["content"]},
                {"role": "user", "content": "No. Try again."},
            ]
    rollout.reward("game", float(rollout.sample % 2))
