"""Agent hosts and proxies, played by one script: the seed decides what each episode is like.

The events are the product's types, sent as hosts and proxies send them: acknowledged, at least
once, turns in parallel, and now and then what should not be sent at all. A host reads its requests
as the broker shows them to committed readers, so a request that comes twice is played twice.
"""

import asyncio
from collections import Counter
from random import Random
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from msgspec import Raw

from odradek.agents.binding.requests import SampleAddress, send
from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    KafkaAppender,
    RecordAddress,
    consumer,
    record_of,
)
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec, events, ids
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.topics import A2A_REQUESTS, REWARDS, TURNS, agent_topic
from tests.simulation.children import Family
from tests.simulation.engines import Engines
from tests.simulation.loop import current_life
from tests.simulation.network import Network

AGENT = "hilo"
REQUESTS = agent_topic(A2A_REQUESTS, AGENT)


class Told(NamedTuple):
    """What an episode must come to, whatever happens to it on the way."""

    episode: str
    task: str
    sample: int
    turns: int
    outcome: events.Outcome
    """As sealed or aborted; HOST_LOST where nothing ended it."""
    reward: float | None
    sure: bool
    """Whether everything was acknowledged well before its deadline."""


class Hosts:
    """Every agent host and proxy of the installation.

    Args:
        bus: Where Kafka is.
        engines: Say which version samples.
        seed: Decides each episode's story.
        mischief: Chance of a needless repeat, of a late turn, of junk.
        children: Chance that an agent asks others.
    """

    def __init__(
        self, bus: BusSettings, engines: Engines, seed: int, mischief: float, children: float
    ) -> None:
        self.bus = bus
        self.engines = engines
        self.seed = seed
        self.mischief = mischief
        self.children = children
        self.seen: Counter[str] = Counter()
        """How often each message id was asked for."""
        self.told: dict[str, Told] = {}
        self.busy = 0
        self._runs: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve requests for ever."""
        self._appender = await KafkaAppender.connect(self.bus)
        self._patient = await KafkaAppender.connect(self.bus, timeout_s=PATIENT_S)
        following = asyncio.create_task(self.engines.follow(self.bus))
        self._runs.add(following)
        reader = consumer(self.bus)
        await reader.start()
        places = [
            TopicPartition(self.bus.topic(REQUESTS), number)
            for number in sorted(reader.partitions_for_topic(self.bus.topic(REQUESTS)))
        ]
        reader.assign(places)
        for place in places:
            reader.seek(place, 0)
        while True:
            for messages in (await reader.getmany(timeout_ms=500)).values():
                for message in messages:
                    asked = send(record_of(message, self.bus))
                    self.seen[asked.message_id] += 1
                    if self.seen[asked.message_id] > 1 or asked.sample is None:
                        continue  # a host knows its tasks by their snapshots
                    run = asyncio.create_task(self._serve(asked.message_id, asked.sample))
                    self._runs.add(run)
                    run.add_done_callback(self._runs.discard)

    async def _serve(self, message: str, sample: SampleAddress) -> None:
        self.busy += 1
        rng = Random(f"{self.seed}/{sample.task_id}/{sample.sample}")
        for attempt in range(1, sample.max_attempts + 1):
            final = attempt == sample.max_attempts
            if not await self._play(rng, message, sample, attempt, final):
                break
        self.busy -= 1

    async def _play(
        self, rng: Random, message: str, sample: SampleAddress, attempt: int, final: bool
    ) -> bool:
        """One attempt; returns whether another one follows."""
        episode = str(ids.uuid.uuid5(ids.NAMESPACE, f"episode/{message}/{attempt}"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(rng.uniform(0, 0.5))
        opened = events.EpisodeOpened(
            episode_id=episode,
            task_id=sample.task_id,
            agent=AGENT,
            sample=sample.sample,
            group_size=sample.group_size,
            attempt=attempt,
            last_attempt=final,
            purpose=sample.purpose,
            rewards=sample.rewards,
            failure_reward=sample.failure_reward,
            timeouts=sample.timeouts,
            item=sample.item,
        )
        repeat = await self.open(rng, opened)
        n = rng.choice((0, 1, 1, 2, 3, 4))
        writers = 2 if rng.random() < 0.15 else 1
        version = await self.engines.sample(episode)
        if version is None:
            n = 0  # no engine answers: the agent gets errors, and makes do without
        turns = [
            _turn(episode, f"{episode[:8]}-w{at % writers}", at // writers, version or 0)
            for at in range(n)
        ]
        together = rng.random() < 0.4
        if together:
            rng.shuffle(turns)
            await asyncio.gather(*(self.tell(rng, TURNS.name, episode, turn) for turn in turns))
        else:
            for turn in turns:
                await asyncio.sleep(rng.uniform(0, 0.4))
                await self.tell(rng, TURNS.name, episode, turn)
        if repeat is not None:
            await repeat
        family = Family(self, episode, sample, self.children)
        answered = await family.answered()
        if family:
            over = asyncio.create_task(family.over())
            self._runs.add(over)
            over.add_done_callback(self._runs.discard)
        fate = rng.random()
        value = float(rng.choice((0, 1, 1, 2)))
        early = rng.random() < 0.5
        if early and fate < 0.7:
            await self.reward(rng, episode, value)
        if fate < 0.15:
            # The host is lost. Its successor aborts the episode, or nobody ever does.
            heir = rng.random() < 0.5
            if heir:
                retry = not final
                await self.tell(
                    rng,
                    TURNS.name,
                    episode,
                    events.EpisodeAborted(
                        episode_id=episode, reason=events.Outcome.HOST_LOST, retry=retry
                    ),
                )
            times = sample.timeouts
            sure = heir and loop.time() - began < times.attempt_s and not family
            self.told[episode] = Told(
                episode,
                sample.task_id,
                sample.sample,
                n,
                events.Outcome.HOST_LOST,
                None,
                sure,
            )
            return not final
        outcome = events.Outcome.COMPLETED
        if fate < 0.25:
            outcome = rng.choice(
                (events.Outcome.FAILED, events.Outcome.TIMED_OUT, events.Outcome.CANCELLED)
            )
        count = sum(turn.writer.endswith("w0") for turn in turns)
        lost_turn = rng.random() < 0.05 and not self.mischief
        sealed = events.EpisodeSealed(
            episode_id=episode,
            writer=f"{episode[:8]}-w0" if n else "",
            n_turns=count + lost_turn,
            outcome=outcome,
            children=answered,
        )
        await self.tell(rng, TURNS.name, episode, sealed)
        ended = loop.time()
        if outcome is events.Outcome.COMPLETED and not early:
            await asyncio.sleep(rng.uniform(0, 1.0))
            if rng.random() < 0.9:
                await self.reward(rng, episode, value)
            else:
                value = float("nan")
        elif outcome is events.Outcome.COMPLETED and fate >= 0.7:
            await self.reward(rng, episode, value)
        if rng.random() < self.mischief:
            late = _turn(episode, f"{episode[:8]}-w0", count, version or 0)
            await self.tell(rng, TURNS.name, episode, late)
        times = sample.timeouts
        # Rewards go through the intake, whose workers may be down for long: they are never sure.
        sure = ended - began < times.attempt_s * 0.9 and outcome is not events.Outcome.COMPLETED
        sure = sure and not family
        if lost_turn and outcome is not events.Outcome.CANCELLED:
            outcome = events.Outcome.INCOMPLETE
        self.told[episode] = Told(episode, sample.task_id, sample.sample, n, outcome, value, sure)
        return False

    async def turns(self, episode: str, n: int) -> list[events.Turn]:
        """So many turns of an episode, sampled by an engine; none where none answers."""
        version = await self.engines.sample(episode)
        if version is None:
            return []
        return [_turn(episode, f"{episode[:8]}-w0", seq, version) for seq in range(n)]

    async def reward(self, rng: Random, episode: str, value: float) -> None:
        reward = events.Reward(
            episode_id=episode, component="game", value=value, source=f"/agent/{AGENT}"
        )
        await self.tell(rng, REWARDS.name, episode, reward)
        if rng.random() < self.mischief:  # a judge that changed its mind: the first counts
            again = events.Reward(
                episode_id=episode, component="game", value=value + 5, source="/late"
            )
            await self.tell(rng, REWARDS.name, episode, again)

    async def open(self, rng: Random, opened: events.EpisodeOpened) -> "asyncio.Task[None] | None":
        """Once; and perhaps a repeat of it among the first turns, which changes nothing.

        No world has a repeat behind the episode's deadline, where a Tick may have closed it: that
        would open a second story, as the assembler keeps nothing of what is closed. A host cannot
        write one: its EpisodeOpened stands in one fenced transaction with the task's snapshot, and whoever
        takes the partition over reads whether they stand before it opens anything. Where they do,
        it ends that attempt, and the next one is another episode. (A request that is sent again
        after thousands of others, when its host has forgotten it, is played anew; dispatchers send
        none twice, and that is checked here.)
        """
        value, name = codec.encode(opened), opened.episode_id
        headers = codec.headers(opened, source="/host", subject=name, event_id=f"{name}/Opened")
        repeated = rng.random() < self.mischief
        first = await self._patient.append(TURNS.name, key=name, value=value, headers=headers)
        return asyncio.create_task(self._repeat(first, opened)) if repeated else None

    async def _repeat(self, first: RecordAddress, opened: events.EpisodeOpened) -> None:
        net = Network.current
        where = TopicPartition(self.bus.topic(first.topic), first.partition)
        message = net.cluster.partition(where).log[first.offset].message
        assert message is not None
        until = message.timestamp / 1000 + opened.timeouts.attempt_s + opened.timeouts.seal_s
        record = (message.key, message.value, message.headers, message.timestamp)

        def arrive() -> None:
            """What the broker does: only it knows when a record that was under way is there."""
            if net.cluster.now() < until:
                net.cluster.produce(where, ("repeat", first.offset), [record])

        await asyncio.sleep(Random(opened.episode_id).uniform(0, 1.5))
        await net.call(current_life(), arrive)

    async def tell(self, rng: Random, topic: str, episode: str, event: Any) -> None:
        """Append until it is acknowledged, and perhaps once more."""
        value = codec.encode(event)
        await self._append(topic, episode, value, event)
        if rng.random() < self.mischief:
            await asyncio.sleep(rng.uniform(0, 2.0) if rng.random() < 0.3 else 0)
            await self._append(topic, episode, value, event)
        if rng.random() < self.mischief / 8:
            junk = rng.choice((b"{", b"\xff\xfe", b'{"type":"turn"}', b"null", b""))
            await self._append(topic, episode, junk, event)

    async def _append(self, topic: str, episode: str, value: bytes, event: Any) -> None:
        headers = codec.headers(
            event, source="/host", subject=episode, event_id=f"{episode}/{type(event).__name__}"
        )
        while True:
            try:
                await self._appender.append(topic, key=episode, value=value, headers=headers)
            except LogUnavailable:
                continue
            return


def _turn(episode: str, writer: str, seq: int, version: int) -> events.Turn:
    sampled = [100 + seq, 200 + seq]
    return events.Turn(
        episode_id=episode,
        turn_id=f"{episode}/{writer}/{seq}",
        writer=writer,
        seq=seq,
        request=events.Request(messages=(Raw(b'{"role":"user","content":"hi"}'),)),
        reply=events.Reply(message=Raw(b'{"role":"assistant","content":"yo"}')),
        prompt=events.Prompt(ids=pack_ids([1, 2, seq + 3])),
        completion=events.Completion(ids=pack_ids(sampled), logprobs=pack_floats([-0.5, -0.25])),
        versions=(events.VersionSpan(version, 0, 2),),
        usage=events.Usage(prompt_tokens=3, completion_tokens=2),
    )
