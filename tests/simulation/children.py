"""Agents that a simulated agent asks: each a child of its episode, played by the same script."""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from odradek.agents.binding.requests import SampleAddress
from odradek.schemas import events, ids
from odradek.schemas.topics import TURNS

if TYPE_CHECKING:
    from tests.simulation.host import Hosts

AGENT = "answerer"
RULES = ((0.0, 1.0), (1.0, 0.0), (0.5, 0.25))
"""Weights of the own reward and of the parent's."""


class Family:
    """The children of one attempt."""

    def __init__(self, hosts: "Hosts", parent: str, sample: SampleAddress, chance: float) -> None:
        self._hosts = hosts
        self._parent = parent
        self._sample = sample
        self._rng = Random(f"{hosts.seed}/{parent}/children")
        many = self._rng.choice((1, 1, 2)) if self._rng.random() < chance else 0
        self._asking = [asyncio.create_task(self._ask(number)) for number in range(many)]

    def __bool__(self) -> bool:
        return bool(self._asking)

    async def answered(self) -> tuple[str, ...]:
        """Episodes whose replies the parent had; now and then it goes on without them."""
        if not self._asking or self._rng.random() < 0.2:
            return ()
        return tuple(name for name in await asyncio.gather(*self._asking) if name)

    async def over(self) -> None:
        """Return once nobody plays any more."""
        await asyncio.gather(*self._asking)

    async def _ask(self, number: int) -> str:
        """A child in its attempts; the episode that answered, or ""."""
        partitions = self._hosts.bus.topic_partitions
        message = ids.child_message_id(self._parent, number, partitions=partitions)
        rng = Random(f"{self._hosts.seed}/{message}")
        for attempt in (1, 2):
            episode = ids.episode_id(
                message,
                attempt,
                partition=ids.partition_for(message, partitions),
                partitions=partitions,
            )
            if not await self._play(rng, message, episode, attempt):
                return episode
            if rng.random() < 0.2:
                return ""  # the next attempt is promised, and never comes
        return ""

    async def _play(self, rng: Random, message: str, episode: str, attempt: int) -> bool:
        """One attempt; returns whether another one follows."""
        hosts, sample = self._hosts, self._sample
        own, parent = rng.choice(RULES)
        await asyncio.sleep(rng.uniform(0, 0.5))
        repeat = await hosts.open(
            rng,
            events.EpisodeOpened(
                episode_id=episode,
                task_id=sample.task_id,
                agent=AGENT,
                sample=sample.sample,
                group_size=sample.group_size,
                attempt=attempt,
                last_attempt=attempt == 2,
                purpose=sample.purpose,
                rewards={"game": 1.0} if own else {},
                timeouts=sample.timeouts,
                parent=self._parent,
                message_id=message,
                own_weight=own,
                parent_weight=parent,
            ),
        )
        n = rng.choice((0, 1, 2))
        turns = await hosts.turns(episode, n)
        for turn in turns:
            await asyncio.sleep(rng.uniform(0, 0.4))
            await hosts.tell(rng, TURNS.name, episode, turn)
        if repeat is not None:
            await repeat
        fate = rng.random()
        if fate < 0.15:
            retry = attempt == 1
            aborted = events.EpisodeAborted(
                episode_id=episode, reason=events.Outcome.HOST_LOST, retry=retry
            )
            await hosts.tell(rng, TURNS.name, episode, aborted)
            return retry
        if fate < 0.2:
            return False  # nobody ends it
        outcome = events.Outcome.COMPLETED
        if fate < 0.4:
            outcome = rng.choice((events.Outcome.FAILED, events.Outcome.CANCELLED))
        if fate > 0.6:
            await hosts.reward(rng, episode, float(rng.choice((0, 1))))
        sealed = events.EpisodeSealed(
            episode_id=episode,
            writer=f"{episode[:8]}-w0" if turns else "",
            n_turns=len(turns),
            outcome=outcome,
        )
        await hosts.tell(rng, TURNS.name, episode, sealed)
        if 0.4 < fate < 0.55:
            await hosts.reward(rng, episode, 1.0)
        return False
