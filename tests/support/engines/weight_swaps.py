"""A trainer that swaps an engine's weights while others call it: each swap meets a long request."""

import asyncio
import threading
from contextlib import AsyncExitStack, contextmanager
from types import SimpleNamespace

from openai import AsyncOpenAI

from odradek.infra.bus import MemoryAppender
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.proxy.app import Proxy
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Pointer, Turn, TurnsEvent
from odradek.streams.stages.continuity import Continuity
from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.commit.resume import ResumePoint
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines

KEY = "k" * 32
RULES = "You are in a game of numbers. Read the hints and answer with one figure. " * 5
"""What all calls begin with: 365 tokens, so most of what an engine computes lies in its cache."""
SAMPLES = 8
"""Of each half of a group: those between swap and announcement, and those after it."""
LONG = 6000
"""Tokens of a request that outlasts a swap."""
SURE = 5
"""So many of its tokens must come before a swap, and after it."""


SLOW_S = 300
"""Of a connection, too: the trainer keeps this process busy."""


class LongRequest:
    """A stream that is read as it comes."""

    def __init__(self):
        self.tokens = 0
        self.over = False
        self._news = asyncio.Condition()

    async def read(self, client):
        """Ask, and read to the end."""
        try:
            async with client:
                await self._read(client)
        finally:
            async with self._news:
                self.over = True
                self._news.notify_all()

    async def _read(self, client):
        stream = await client.chat.completions.create(
            model="policy", messages=opening("tell all"), max_tokens=LONG, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        async for _ in stream:
            async with self._news:
                self.tokens += 1
                self._news.notify_all()

    async def more(self, n):
        """Return once it has sampled n more. It must not have ended by then."""
        wanted = self.tokens + n
        async with self._news:
            await self._news.wait_for(lambda: self.tokens >= wanted or self.over)
        assert not self.over, f"the long request ended after {self.tokens} tokens"


def opening(said):
    """The first messages of a conversation."""
    return [{"role": "system", "content": RULES}, {"role": "user", "content": said}]


class Table:
    """Agents before one proxy, in a thread of their own."""

    def __init__(self, thread, url, log):
        self._thread = thread
        self._url = url
        self._log = log
        self._long = []
        self._tasks = []
        self.held = []
        """How many tokens each long request had when its swap was over."""

    def hold(self):
        """Begin a long request; return once it samples. The one of the swap before ends then."""
        self._thread.call(self._hold())

    async def _hold(self):
        request = LongRequest()
        client = self._client(f"long{len(self._long)}")
        self._long.append(request)
        self._tasks.append(asyncio.create_task(request.read(client)))
        await request.more(SURE)
        for task in self._tasks[:-1]:
            task.cancel()

    def outlasted(self):
        """Return once the long request has gone on after the swap."""
        self.held.append(self._long[-1].tokens)
        self._thread.call(self._long[-1].more(SURE))

    def play(self, names):
        """Two turns each, all at once; returns the sequences of each."""
        self._thread.call(self._play(names))
        return [self._sequences(name) for name in names]

    async def _play(self, names):
        await asyncio.gather(*map(self._conversation, names))

    async def _conversation(self, name):
        messages = opening("Guess a number from 1 to 3.")
        async with self._client(name) as client:
            for _ in range(2):
                reply = await client.chat.completions.create(
                    model="policy", messages=messages, max_tokens=24
                )
                text = reply.choices[0].message.content
                messages += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": "low"},
                ]

    def _client(self, name):
        token = mint(Claims(sub=name), [KEY])
        return AsyncOpenAI(
            base_url=f"{self._url}/e/{name}/v1", api_key=token, max_retries=3, timeout=SLOW_S
        )

    def _sequences(self, name):
        continuity = Continuity()
        for turn in self.turns(name):
            continuity.add(turn)
        return continuity.sequences()

    def turns(self, name):
        """An episode's turns, as the log has them."""
        events = [
            codec.decode(record.value, TurnsEvent)
            for record in self._log.on("rl.turns.v1")
            if record.key == name
        ]
        return [event for event in events if isinstance(event, Turn)]

    async def aclose(self):
        """End what is held open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextmanager
def table(engine_url, versions, **settings):
    """Agents before a proxy before an engine."""
    log = MemoryAppender()
    chosen = ProxySettings(port=0, engine_url=engine_url, call_s=SLOW_S, **settings)
    thread = LoopThread("agents")
    stack = AsyncExitStack()
    proxy = Proxy(chosen, log, keys=[KEY], versions=versions)
    url = thread.call(stack.enter_async_context(serving(proxy, shutdown_s=0.1)))
    found = Table(thread, url, log)
    stack.push_async_callback(found.aclose)
    try:
        yield found
    finally:
        thread.call(stack.aclose())
        thread.close()


class Played:
    """A source of one group for each version: half of it played before anybody knows of it."""

    def __init__(self, agents, versions, groups):
        self._versions = versions
        self._agents = agents
        self._groups = groups
        self._offset = 0
        self._early = []
        self._announced = threading.Event()

    def at(self, point):
        """What is done at a crash point of the trainer."""
        if point == "weights_before_engine":
            self._agents.hold()
        if point == "engine_before_policy":
            self._agents.outlasted()
            self._early = self._half("early")

    def announce(self, policy):
        """The log has a version."""
        self._versions.current, self._versions.engines = policy.version, policy.engines
        self._announced.set()

    def _half(self, kind):
        names = [f"{kind}-{self._offset}-{n}" for n in range(SAMPLES)]
        return list(zip(names, self._agents.play(names), strict=True))

    def next(self, timeout_s):
        """See `GroupSource`."""
        if not self._announced.wait(timeout_s):
            return None
        self._announced.clear()
        group = group_of(self._offset, self._early + self._half("late"))
        self._offset += 1
        return group

    def ended(self):
        """See `GroupSource`."""
        return self._offset == self._groups

    def close(self):
        """See `GroupSource`."""


def group_of(offset, episodes):
    """A group of which every second sample has won."""
    found = []
    for sample, (name, sequences) in enumerate(episodes):
        reward = float(sample % 2)
        episode = Episode(
            episode_id=name, task_id=f"t{offset}", agent="a", sample=sample, reward=reward,
            group_size=len(episodes), sequences=sequences,
        )  # fmt: skip
        pointer = Pointer(
            episode_id=name, sample=sample, topic="rl.episodes.v1", partition=0, reward=reward,
            offset=offset * len(episodes) + sample, digest=codec.digest(codec.encode(episode)),
        )  # fmt: skip
        found.append((pointer, episode))
    pointers = tuple(pointer for pointer, _ in found)
    batch = Batch(task_id=f"t{offset}", agent="a", group_size=len(found), episodes=pointers)
    return EpisodeGroup(offset, batch, tuple(found))


class Announced(ListedAnnouncements):
    """Whoever follows the policy learns of it at once."""

    def __init__(self, tell):
        super().__init__()
        self._tell = tell

    def policy(self, policy):
        """See `Announcer`."""
        super().policy(policy)
        self._tell(policy)


def trained(model, folder, engine, *, steps, before, client=None, **settings):
    """Train for so many steps, each with a swap after it.

    Args:
        model: Folder of the model to start from.
        folder: Where weights go.
        engine: Its address.
        steps: How many.
        before: A version that nobody has had above.
        client: Makes the engine's client, if it is to be another one.
        settings: Of the proxy.

    Returns:
        The metrics of each step, and the agents' table.
    """
    told = TrainerSettings(
        model=str(model), output_dir=folder, device="cpu", learning_rate=2e-3, max_steps=steps,
        rows_per_step=2 * SAMPLES, micro_tokens=4096, max_staleness=10**9, save_every=1000,
    )  # fmt: skip
    versions = SimpleNamespace(current=None, engines={}, adapter="")
    with table(engine, versions, **settings) as agents:
        source = Played(agents, versions, steps)
        announced = Announced(source.announce)
        lineage = Lineage()
        consumption = Cursor(told.rules, lineage)
        engines = Engines([engine], timeout_s=60, client=client, at=lambda _: None)
        transfer = DirectoryTransfer(folder / "weights", engines, config=None, keep=3, at=source.at)
        feed = LogRolloutWorker(source, consumption, ahead=2 * SAMPLES)
        standing = ResumePoint(version=before)
        hands = TrainerParts(feed, transfer, announced, lineage, standing, source.at)
        LogTrainer(told, hands).run()
    return [step.metrics for step in announced.steps if step.optimized], agents
