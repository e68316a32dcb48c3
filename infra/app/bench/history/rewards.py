"""How long a late reward takes to become a revision: from its appending to who reads revisions."""

import asyncio
import statistics
import time
from contextlib import suppress
from typing import Any, Final

from odradek.infra.app.bench.streams import StageProcess, SyntheticEpisodes, await_count, load
from odradek.infra.bus import BusSettings, KafkaAppender, at_end, ensure_topics, follow
from odradek.schemas import codec
from odradek.schemas.events import Reward
from odradek.schemas.topics import EPISODES, REVISIONS, REWARDS

PARTITIONS: Final = 4
EVERY_S: Final = 0.02
PATIENCE_S: Final = 60.0


async def late_rewards(bus: BusSettings, rewards: int) -> dict[str, Any]:
    """Seconds of so many late rewards, through intake and assembler as users start them."""
    bus = bus.model_copy(update={"topic_partitions": PARTITIONS})
    await ensure_topics(bus)
    stories = SyntheticEpisodes((max(1, rewards // 8), 8, 2), 4, 2)
    async with (
        StageProcess(bus, "intake", "kafka") as intake,
        StageProcess(bus, "assemble", "kafka") as assemble,
    ):
        await asyncio.gather(intake.ready(), assemble.ready())
        await load(bus, stories)
        groups, size, _ = stories.shape
        await await_count(bus, EPISODES, groups * (size + 1))  # each group's opening is there, too
        taken = await _late(bus, [f"e{n:06d}" for n in range(groups * size)])
    taken.sort()
    return {
        "late_reward_p50_s": round(statistics.median(taken), 4),
        "late_reward_p99_s": round(taken[min(len(taken) - 1, int(len(taken) * 0.99))], 4),
        "late_rewards": len(taken),
    }


async def _late(bus: BusSettings, episodes: list[str]) -> list[float]:
    """Give each episode a reward, one after the other; seconds until each is a revision."""
    sent: dict[str, float] = {}
    taken: list[float] = []
    ready = asyncio.Event()

    async def read() -> None:
        async for record in follow(bus, REVISIONS.name, start=at_end, ready=ready.set):
            taken.append(time.perf_counter() - sent[codec.decode(record.value, Reward).episode_id])
            if len(taken) == len(episodes):
                return

    reading = asyncio.create_task(read())
    appender = await KafkaAppender.connect(bus)
    try:
        async with asyncio.timeout(PATIENCE_S + len(episodes) * EVERY_S):
            await ready.wait()
            for episode in episodes:
                reward = Reward(episode_id=episode, component="late", value=1.0, source="/reward/b")
                headers = codec.headers(
                    reward, source=reward.source, subject=episode, event_id=f"{episode}/late"
                )
                sent[episode] = time.perf_counter()
                await appender.append(
                    REWARDS.name, key=episode, value=codec.encode(reward), headers=headers
                )
                await asyncio.sleep(EVERY_S)
            await reading
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await appender.aclose()
    return taken
