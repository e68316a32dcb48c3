"""Running the judges of docs/bring-your-own-kafka.md, in whatever language they are."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odradek.infra.bus import (
    BusSettings,
    check_place,
    consumer,
    ensure_topics,
    partitions_of,
    producer,
    record_of,
    rows,
    running,
)
from odradek.schemas import codec
from odradek.schemas.events import Conversation, Reward
from odradek.schemas.topics import CONVERSATIONS, REWARDS

PAGE = Path(__file__).parents[3] / "docs" / "bring-your-own-kafka.md"
EPISODES = [f"épisode-{n}" for n in range(20)]
WITHIN_S = 100


def blocks(language: str) -> list[str]:
    """The page's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


async def judged(
    bus: BusSettings, source: str, command: Sequence[str | Path], folder: Path
) -> None:
    """Let a judge run until each conversation has its verdict, where the episode's story is."""
    await ensure_topics(bus, rows(["hilo"]))
    await _converse(bus)
    environment = {
        **os.environ,
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
    }
    judge = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            rewards = await _rewards(bus, len(EPISODES))
    except TimeoutError:
        rewards = []
    finally:
        os.killpg(judge.pid, signal.SIGKILL)
        _, said = judge.communicate()
    assert sorted(EPISODES) == sorted(reward.episode_id for reward in rewards), said.decode()
    assert {("taste", 0.5, source)} == {(r.component, r.value, r.source) for r in rewards}


async def _converse(bus: BusSettings) -> None:
    """Conversations as streams write them: packed, in transactions, the first of them aborted."""
    writer: Any
    async with running(producer(bus, transactional_id="tests.converse"), bus) as writer:
        for names, counts in ((["nobody"], False), (EPISODES, True)):
            await writer.begin_transaction()
            for name in names:
                event = Conversation(
                    episode_id=name, task_id="t", agent="hilo", sample=0, input="long " * 500
                )
                await writer.send_and_wait(
                    bus.topic(CONVERSATIONS.name), codec.encode(event), key=name.encode()
                )
            await (writer.commit_transaction() if counts else writer.abort_transaction())


async def _rewards(bus: BusSettings, n: int) -> list[Reward]:
    found: list[Reward] = []
    reader: Any
    async with running(consumer(bus), bus) as reader:
        partitions = await partitions_of(reader, bus.topic(REWARDS.name))
        reader.assign(partitions)
        await reader.seek_to_beginning(*partitions)
        while len(found) < n:
            record = record_of(await reader.getone(), bus)
            check_place(record, len(partitions))
            found.append(codec.decode(record.value, Reward))
    return found
