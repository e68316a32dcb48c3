"""A proxy over a log in memory, before a stub engine."""

import asyncio
import json
import time

from aiohttp import ClientSession
from openai import AsyncOpenAI

from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.schemas import codec
from odradek.schemas.events import EpisodeSealed, Turn, TurnsEvent

KEY = "k" * 32


class Bench:
    """A proxy over a log in memory, before the stub engine."""

    def __init__(self, engine, log, proxy, url):
        self.engine = engine
        self.log = log
        self.proxy = proxy
        self.url = url
        self.clients = []

    def token(self, episode="e1", **claims):
        return mint(Claims(sub=episode, **claims), [KEY])

    def agent(self, episode="e1", *, max_retries=0, token=None, **claims):
        client = AsyncOpenAI(
            base_url=f"{self.url}/e/{episode}/v1",
            api_key=token or self.token(episode, **claims),
            max_retries=max_retries,
        )
        self.clients.append(client)
        return client

    def direct(self):
        client = AsyncOpenAI(base_url=f"{self.engine.url}/v1", api_key="x", max_retries=0)
        self.clients.append(client)
        return client

    async def ask(self, content="hi", episode="e1", **more):
        messages = more.pop("messages", [{"role": "user", "content": content}])
        client = self.agent(episode)
        return await client.chat.completions.create(model="policy", messages=messages, **more)

    async def post(self, path, body, *, token=None, headers=None):
        """Status, headers and body of a plain request."""
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            ClientSession() as session,
            session.post(self.url + path, data=data, headers={**sent, **(headers or {})}) as answer,
        ):
            return answer.status, answer.headers, await answer.read()

    async def seal(self, episode="e1", **body):
        token = mint(Claims(sub=episode, scope="host"), [KEY])
        status, _, answer = await self.post(f"/e/{episode}/seal", body, token=token)
        return status, json.loads(answer)

    def events(self, episode="e1"):
        return [
            codec.decode(record.value, TurnsEvent)
            for record in self.log.on("rl.turns.v1")
            if record.key == episode
        ]

    def turns(self, episode="e1"):
        return [event for event in self.events(episode) if isinstance(event, Turn)]

    def sealed(self, episode="e1"):
        return [event for event in self.events(episode) if isinstance(event, EpisodeSealed)]

    async def until(self, condition, timeout_s=60.0):
        """Wait until something observable holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.005)
