"""Imported episodes that a selection takes: they are in no batch, so their own topic is read."""

import math
from contextlib import aclosing

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings, Record, event_of
from odradek.schemas import codec
from odradek.schemas.events import Episode, EpisodeHead, GroupsEvent, Pointer
from odradek.schemas.revisions import LATEST, RevisionBook, revised_reward
from odradek.schemas.topics import EPISODES
from odradek.schemas.worth import DEFAULT_COMPONENT
from odradek.streams.errors import ReplayRefused
from odradek.streams.history.batches import BatchChoice, Progress, TakenBatch
from odradek.streams.history.revisions import late_rewards
from odradek.streams.history.selection import Selection

NO_BATCH = -1
"""Where the offset of a batch stands, for episodes that are in none."""


async def choose_imported(
    bus: BusSettings,
    selection: Selection,
    *,
    archive: Archive | None = None,
    progress: Progress = lambda _done, _all: None,
) -> BatchChoice:
    """The imported episodes that a selection takes, a group for each task. Nothing is written.

    Late rewards count, all that there are: no step has used these episodes with others. An
    episode that nobody rewarded has the reward NaN, which lies in no span.

    Args:
        bus: Where Kafka is.
        selection: Filters of tasks and episodes; times are those of the import.
        archive: Read what the log no longer has.
        progress: Called with offsets.

    Raises:
        ReplayRefused: A filter is of batches.
        NotRevisable: See `revised_reward`.
        TopicMissing: `rl.episodes.v1` is not there.
    """
    if selection.offsets is not None or selection.steps is not None:
        raise ReplayRefused("imported episodes are in no batch: leave out --batches and --steps")
    groups: dict[str, list[Pointer]] = {}
    read = done = 0
    async with looking_back(bus, archive) as lookup:
        bounds = await lookup.bounds(EPISODES.name)
        total = sum(end - first for first, end in bounds)
        book, _ = await late_rewards(lookup, LATEST)
        async with aclosing(lookup.whole(EPISODES.name)) as records:
            async for record in records:
                done += 1
                progress(done, total)
                head = _imported(record)
                if head is None:
                    continue
                read += 1
                pointer = pointer_of(record, head, book)
                if taken(selection, head, pointer, record):
                    groups.setdefault(head.task_id, []).append(pointer)
    return BatchChoice(
        EPISODES.name,
        read,
        tuple(
            TakenBatch(NO_BATCH, "", len(pointers), task, tuple(_in_order(pointers)))
            for task, pointers in groups.items()
        ),
    )


def taken(selection: Selection, head: EpisodeHead, pointer: Pointer, record: Record) -> bool:
    """Whether an episode that is in no batch passes the filters of tasks and of episodes.

    Raises InvalidRecord where its tokens are asked for and cannot be read.
    """
    if not selection.takes_task(head, record.timestamp) or not selection.takes_pointer(pointer):
        return False
    if not selection.reads_episodes:
        return True
    episode: Episode = codec.decode(record.value, Episode, max_bytes=EPISODES.max_bytes)
    return selection.takes_episode(pointer, episode)


def _imported(record: Record) -> EpisodeHead | None:
    event = event_of(record, GroupsEvent, max_bytes=EPISODES.max_bytes)
    return event if isinstance(event, EpisodeHead) and event.imported_from else None


def pointer_of(record: Record, head: EpisodeHead, book: RevisionBook) -> Pointer:
    """A pointer to an episode as a batch would have it, with the newest rewards.

    Raises NotRevisable: see `revised_reward`.
    """
    now = revised_reward(head, book.of(head.episode_id))
    reward = now.reward
    if reward is None:  # it was recorded without one, and a judge may have given one since
        reward = now.components.get(DEFAULT_COMPONENT, math.nan)
    return Pointer(
        episode_id=head.episode_id,
        sample=head.sample,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        digest=codec.digest(record.value or b""),
        reward=reward,
        revision=now.revision,
    )


def _in_order(pointers: list[Pointer]) -> list[Pointer]:
    return sorted(pointers, key=lambda pointer: (pointer.sample, pointer.episode_id))
