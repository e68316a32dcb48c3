"""Two agents on one policy: the asker asks the answerer over the bus, and both learn."""

from typing import Any

from game import SAID, guess_of, opening, question, truth
from openai import AsyncOpenAI

from odradek.agents import Rollout

sdk = AsyncOpenAI(base_url="http://localhost", api_key="-")  # one pool of connections for all games


async def reply(rollout: Rollout, messages: Any) -> str:
    """What the model says next."""
    llm = sdk.with_options(base_url=rollout.base_url, api_key=rollout.api_key)
    made = await llm.chat.completions.create(model=rollout.model, messages=messages, max_tokens=4)
    return made.choices[0].message.content or ""


async def ask(rollout: Rollout) -> None:
    """Guess, have the answerer say where the number lies, and guess again."""
    secrets = rollout.task.input["secrets"]
    secret = secrets[rollout.sample % len(secrets)]
    messages = opening()
    first = await reply(rollout, messages)
    guess = guess_of(first)
    if guess is not None and guess != secret:
        answer = await rollout.ask("answerer", {"guess": guess, "secret": secret})
        if answer.text in SAID:
            messages += [
                {"role": "assistant", "content": first},
                {"role": "user", "content": SAID[answer.text]},
            ]
            guess = guess_of(await reply(rollout, messages))
    rollout.reward("game", float(guess == secret))


async def answer(rollout: Rollout) -> str:
    """Say whether the guess is too low or too high; being right is this agent's own reward."""
    guess, secret = int(rollout.task.input["guess"]), int(rollout.task.input["secret"])
    said = await reply(rollout, question(guess, secret))
    rollout.reward("truth", float(said == truth(guess, secret)))
    return said
