"""Conversations to be judged, looked up, and what is known of an episode by its name."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

from msgspec import Struct

from odradek.infra.app.judging.queue import Candidate, judged, wants
from odradek.infra.bus import BusSettings, Record, RecordLookup, event_of, looking_up
from odradek.infra.errors import VerdictRefused
from odradek.schemas.events import Conversation, Reward
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import CONVERSATIONS, REVISIONS, REWARDS
from odradek.streams.history import Selection
from odradek.streams.history.batches import Progress, choose


class JudgeQueue(Struct, frozen=True):
    """Conversations of a selection, and which of their episodes a person has judged."""

    candidates: tuple[Candidate, ...]
    done: frozenset[str]


async def judge_queue(
    bus: BusSettings,
    selection: Selection,
    component: str,
    source: str,
    *,
    everything: bool = False,
    batches: str = "",
    progress: Progress = lambda _done, _all: None,
) -> JudgeQueue:
    """What a person may judge: conversations that completed and whose task asks for the component.

    Episodes that wait for their rewards are among them, and closed ones.

    Args:
        bus: Where Kafka is.
        selection: Which. Its filters of tasks and times are of conversations; with any other, the
            episode must be in a batch that passes.
        component: Which is judged.
        source: Whose verdicts count as given.
        everything: Also where the task does not ask for the component.
        batches: Where batches stand; see `choose`.
        progress: Called with records that are read, and how many there are.

    Raises:
        HistoryGone, HistoryUnknown, ReplayRefused, TopicMissing: See `choose`.
    """
    meant = None
    if batches or selection.offsets or selection.steps or selection.versions or selection.reward:
        choice = await choose(bus, selection, source=batches, pointers=True)
        meant = {pointer.episode_id for batch in choice.taken for pointer in batch.pointers}
    candidates = []
    async with looking_up(bus) as lookup:
        given = [each async for each in _rewards(lookup)]
        async for record, conversation in _conversations(lookup, progress):
            if (
                wants(conversation, component, everything=everything)
                and selection.takes_task(conversation, record.timestamp)
                and (meant is None or conversation.episode_id in meant)
            ):
                candidates.append(
                    Candidate(record.address, conversation.episode_id, conversation.task_id)
                )
    return JudgeQueue(tuple(candidates), judged(given, source, component))


async def words_of(bus: BusSettings, wanted: Iterable[Candidate]) -> dict[str, Conversation]:
    """The conversations of candidates, by episode; one that is gone is left out."""
    async with looking_up(bus) as lookup:
        records = await lookup.records(one.at for one in wanted)
    found = (_conversation(record) for record in records.values())
    return {one.episode_id: one for one in found if one is not None}


async def conversation_of(bus: BusSettings, episode_id: str) -> Conversation:
    """The conversation of an episode. Raises VerdictRefused where the log holds none."""
    async with looking_up(bus) as lookup:
        bounds = await lookup.bounds(CONVERSATIONS.name)
        home = partition_for(episode_id, len(bounds)) if bounds else 0
        async with aclosing(lookup.span(CONVERSATIONS.name, home)) as records:
            async for record in records:
                if record.key != episode_id:
                    continue
                conversation = _conversation(record)
                if conversation is not None:
                    return conversation
    raise VerdictRefused(
        f"the log holds no conversation of an episode {episode_id!r}: it is not sealed, its id is "
        f"another, or {CONVERSATIONS.name} has forgotten it"
    )


async def _conversations(
    lookup: RecordLookup, progress: Progress
) -> AsyncIterator[tuple[Record, Conversation]]:
    total = sum(end - first for first, end in await lookup.bounds(CONVERSATIONS.name))
    done = 0
    async with aclosing(lookup.whole(CONVERSATIONS.name)) as records:
        async for record in records:
            done += 1
            if done % 256 == 0:
                progress(done, total)
            conversation = _conversation(record)
            if conversation is not None:
                yield record, conversation


async def _rewards(lookup: RecordLookup) -> AsyncIterator[Reward]:
    """All rewards: those on their way, and late ones."""
    for topic in (REWARDS, REVISIONS):
        async with aclosing(lookup.whole(topic.name)) as records:
            async for record in records:
                reward = event_of(record, Reward, max_bytes=topic.max_bytes)
                if reward is not None:
                    yield reward


def _conversation(record: Record) -> Conversation | None:
    found: Conversation | None = event_of(record, Conversation, max_bytes=CONVERSATIONS.max_bytes)
    return found
