"""An agent's episodes, looked up: their records first, then their events on `rl.turns.v1`."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec import Struct

from odradek.infra.app.introspection.episodes import (
    ENDS,
    AgentEpisode,
    PlacedEvent,
    agent_episode,
)
from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings, Record, RecordLookup, event_of
from odradek.schemas.errors import NotRevisable
from odradek.schemas.events import Episode, EpisodeHead, EpisodesEvent, GroupsEvent, TurnsEvent
from odradek.schemas.revisions import LATEST, RevisionBook, revised_reward
from odradek.schemas.topics import EPISODES, TURNS
from odradek.streams.errors import HistoryGone, HistoryUnknown
from odradek.streams.history import Selection
from odradek.streams.history import pointers as following
from odradek.streams.history.batches import BatchChoice, Progress, choose
from odradek.streams.history.imports import pointer_of, taken
from odradek.streams.history.pointers import shown
from odradek.streams.history.revisions import late_rewards

AT_ONCE: Final = 64
"""Episodes of batches that are looked up together."""
CLOCKS_S: Final = 1.0
"""Times of the log have milliseconds, and those of events more."""


class FoundEpisode(Struct, frozen=True):
    """A record with an episode of the agent."""

    at: str
    head: EpisodeHead
    child: str = ""
    """Which of its children, where it is not the agent's own."""

    @property
    def episode_id(self) -> str:
        """Of the agent's episode."""
        return self.child or self.head.episode_id

    @property
    def opened_at(self) -> float:
        """When the sample was opened, Unix seconds: no child is older."""
        return self.head.opened_at


async def agent_episodes(
    bus: BusSettings,
    agent: str,
    selection: Selection,
    *,
    source: str = "",
    skip_missing: bool = False,
    archive: Archive | None = None,
    progress: Progress = lambda _done, _all: None,
) -> list[AgentEpisode]:
    """The episodes of an agent that a selection takes, its own and those that others asked for.

    With filters of batches or steps they are those in batches, with the rewards that these have.
    Otherwise all are meant, also those in no batch, and late rewards count. Imported episodes have
    no turns and are left out. Memory holds about 2 KB an episode, and the turns of those that are
    open where the log is being read.

    Args:
        bus: Where Kafka is.
        agent: Its name.
        selection: Which episodes; its agents do not count.
        source: Where batches stand; see `choose`.
        skip_missing: Leave out batches of which an episode is gone.
        archive: Read what the log no longer has.
        progress: Called with records that are read, and how many there are.

    Raises:
        HistoryUnknown: There is none, or a step was not made.
        HistoryGone: Retention has deleted a batch that is meant, or an episode of it.
        ReplayRefused, TopicMissing: See `choose`.
    """
    selection = msgspec.structs.replace(selection, agents=())
    in_batches = selection.offsets is not None or selection.steps is not None or source
    seen: Counter[str] = Counter()
    wanted: dict[str, FoundEpisode] = {}
    async with looking_back(bus, archive) as lookup:
        if in_batches:
            choice = await choose(
                bus, selection, source=source, skip_missing=skip_missing, pointers=True,
                archive=archive,
            )  # fmt: skip
            heads = _in_batches(lookup, choice)
        else:
            heads = _on_the_log(lookup, selection, progress)
        async with aclosing(heads):  # type: ignore[type-var] # both are generators
            async for at, head in heads:
                for found in _of_agents(at, head):
                    name = _agent_of(found)
                    seen[name] += 1
                    if name == agent:
                        wanted.setdefault(found.episode_id, found)
        if not wanted:
            raise HistoryUnknown(_nobody(agent, seen))
        return [one async for one in _played(lookup, wanted, progress)]


def _nobody(agent: str, seen: Counter[str]) -> str:
    if not seen:
        return f"no episode of {agent!r}, nor of any other agent, passes the filters: widen them"
    names = ", ".join(name for name, _ in seen.most_common(8))
    return f"no episode of {agent!r} passes the filters; those that do are of {names}"


def _of_agents(at: str, head: EpisodeHead) -> Iterator[FoundEpisode]:
    yield FoundEpisode(at, head)
    for child in head.children:
        yield FoundEpisode(at, head, child.episode_id)


def _agent_of(found: FoundEpisode) -> str:
    children = {one.episode_id: one.agent for one in found.head.children}
    return children.get(found.child, found.head.agent)


async def _in_batches(
    lookup: RecordLookup, choice: BatchChoice
) -> AsyncIterator[tuple[str, EpisodeHead]]:
    """The episodes of batches, with the rewards that these state. Raises HistoryGone."""
    pointers = [pointer for batch in choice.taken for pointer in batch.pointers]
    for at in range(0, len(pointers), AT_ONCE):
        part = pointers[at : at + AT_ONCE]
        found = await following.episodes(lookup, part)
        for pointer in part:
            address = following.address_of(pointer)
            episode = found[address]
            if not isinstance(episode, Episode):
                raise HistoryGone(f"episode {pointer.episode_id} is gone ({episode.why})")
            yield shown(address), msgspec.structs.replace(episode, reward=pointer.reward)


async def _on_the_log(
    lookup: RecordLookup, selection: Selection, progress: Progress
) -> AsyncIterator[tuple[str, EpisodeHead]]:
    """All episodes that pass, with the newest rewards."""
    book, _ = await late_rewards(lookup, LATEST)
    kind = EpisodesEvent if selection.versions is not None else GroupsEvent
    async for record in _since(lookup, EPISODES.name, selection.since, progress):
        head = _head(record, kind)
        if head is None or head.imported_from:
            continue
        head = _revised(head, book)
        if taken(selection, head, pointer_of(record, head, book), record):
            yield shown(record.address), head


def _head(record: Record, kind: object) -> EpisodeHead | None:
    event = event_of(record, kind, max_bytes=EPISODES.max_bytes)
    return event if isinstance(event, EpisodeHead) else None


def _revised(head: EpisodeHead, book: RevisionBook) -> EpisodeHead:
    try:
        now = revised_reward(head, book.of(head.episode_id))
    except NotRevisable:
        return head  # of an earlier release: it is worth what it was
    return msgspec.structs.replace(head, reward=now.reward, components=now.components)


async def _since(
    lookup: RecordLookup, topic: str, since: float, progress: Progress
) -> AsyncIterator[Record]:
    bounds = await lookup.bounds(topic)
    starts = {
        at: await lookup.at_time(topic, at, since) if since > 0 else first
        for at, (first, _) in enumerate(bounds)
    }
    total = sum(max(0, end - starts[at]) for at, (_, end) in enumerate(bounds))
    done = 0
    async with aclosing(lookup.whole(topic, starts)) as records:
        async for record in records:
            done += 1
            if done % 256 == 0:
                progress(done, total)
            yield record


async def _played(
    lookup: RecordLookup, wanted: dict[str, FoundEpisode], progress: Progress
) -> AsyncIterator[AgentEpisode]:
    """Each episode as soon as its end is read, and those without an end at last."""
    since = min(found.opened_at for found in wanted.values()) - CLOCKS_S
    events: dict[str, list[PlacedEvent]] = {}
    left = dict(wanted)
    async for record in _since(lookup, TURNS.name, since, progress):
        found = left.get(record.key or "")
        if found is None:
            continue
        event = event_of(record, TurnsEvent, max_bytes=TURNS.max_bytes)
        if event is None:
            continue
        kept = events.setdefault(found.episode_id, [])
        kept.append(PlacedEvent(shown(record.address), record.timestamp, event))
        if isinstance(event, ENDS):
            del left[found.episode_id]
            yield agent_episode(
                found.head, found.at, events.pop(found.episode_id), child=found.child
            )
            if not left:
                return
    for name, found in left.items():
        yield agent_episode(found.head, found.at, events.pop(name, ()), child=found.child)
