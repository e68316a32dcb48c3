"""Conversations on the log, as the assembler writes them."""

from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics
from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.schemas.topics import CONVERSATIONS


def conversation(name: str, **more) -> Conversation:
    """One that wants the reward `brief`."""
    fields = {"task_id": "t1", "agent": "hilo", "sample": 0, "reward_components": ("brief",)} | more
    return Conversation(episode_id=name, **fields)


async def write(bus: BusSettings, *conversations: Conversation) -> None:
    """Append conversations."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for each in conversations:
        await appender.append(CONVERSATIONS.name, key=each.episode_id, value=codec.encode(each))
    await appender.aclose()
