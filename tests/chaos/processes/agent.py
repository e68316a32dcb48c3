"""The scripted agent: plays by the oracle, repeats what broke, writes down what it was shown.

A reply goes into the journal (`CHAOS_SEEN`) once its end was seen and before anything else happens,
in one write: so what stands there is what an agent has seen, however it died.
"""

import asyncio
import os
from functools import cache
from typing import Protocol

import aiohttp
import msgspec

from odradek.agents import Rollout, UpstreamUnavailable
from tests.chaos.verification import oracle

RETRIES_S = 0.1
LONGEST_S = 1.0


@cache
def journal() -> int:
    """The file of what agents were shown, open for appending."""
    return os.open(os.environ["CHAOS_SEEN"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


@cache
def session() -> aiohttp.ClientSession:
    """One pool for all episodes of this host."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=20),
    )


class Run(Protocol):
    """What a call needs to know of its run."""

    base_url: str
    api_key: str
    model: str
    episode_id: str


class Broken(Exception):
    """The reply did not come to its end: ask again."""


async def play(rollout: Rollout) -> None:
    """One attempt at one sample."""
    given = rollout.task.input
    script = oracle.play_of(given["seed"], rollout.task.task_id, rollout.sample, rollout.attempt)
    await converse(rollout, script)
    if script.ending == "failed":
        raise ValueError("this sample fails")
    if script.ending == "upstream_failed":
        raise UpstreamUnavailable("the model is away on this attempt")
    rollout.reward("score", script.score)
    if script.ending != "unrewarded":
        rollout.reward("bonus", script.bonus)


async def converse(run: Run, script: oracle.Play) -> None:
    """Make all calls of a script, those of one step at once."""
    for number, step in enumerate(script.steps):
        told = oracle.history(script, number)
        async with asyncio.TaskGroup() as burst:
            for call in step:
                messages = [*told, {"role": "user", "content": call.key}]
                burst.create_task(ask(run, call, messages))


async def ask(run: Run, call: oracle.Call, messages: list[dict[str, str]]) -> None:
    """Make a call until its end was seen; as SDKs do, each repetition says which it is."""
    body = msgspec.json.encode(
        {"model": run.model, "messages": messages, "stream": call.stream, "temperature": 1.0}
    )
    pause, retries = RETRIES_S, 0
    while True:
        try:
            text = await _once(run, body, retries, stream=call.stream)
            break
        except (aiohttp.ClientError, TimeoutError, Broken):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_S)
            retries += 1
    if text != oracle.said(call.key):
        raise RuntimeError(f"{call.key}: the reply is not the engine's: {text!r}")
    os.write(journal(), msgspec.json.encode([run.episode_id, call.key, retries]) + b"\n")


async def _once(run: Run, body: bytes, retries: int, *, stream: bool) -> str:
    headers = {
        "Authorization": f"Bearer {run.api_key}",
        "Content-Type": "application/json",
        "x-stainless-retry-count": str(retries),
    }
    url = f"{run.base_url}/chat/completions"
    async with session().post(url, data=body, headers=headers) as answer:
        if answer.status in {409, 429} or answer.status >= 500:
            raise Broken(str(answer.status))
        if answer.status != 200:
            raise RuntimeError(f"the proxy answered {answer.status}: {await answer.text()}")
        if not stream:
            reply = msgspec.json.decode(await answer.read())
            return reply["choices"][0]["message"]["content"]
        return await _streamed(answer)


async def _streamed(answer: aiohttp.ClientResponse) -> str:
    """The text of a stream; once a finish reason has come its end was seen, whatever follows."""
    text, ended = "", False
    try:
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = msgspec.json.decode(line[6:])
            if "error" in chunk:
                raise Broken("an error in the stream")
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                ended = ended or choice["finish_reason"] is not None
    except (aiohttp.ClientError, TimeoutError):
        if not ended:
            raise
    if not ended:
        raise Broken("no finish reason")
    return text
