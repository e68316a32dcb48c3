"""Episodes and batches against the model of `model`, and against what hosts know of them."""

from collections import Counter, defaultdict
from datetime import datetime
from functools import lru_cache
from typing import Any

from odradek.schemas.codec import digest, header
from odradek.schemas.events import Batch, Conversation, Episode, EpisodesEvent, Reward, TurnsEvent
from odradek.schemas.topics import BATCHES, CONVERSATIONS, DLQ, EPISODES, REVISIONS, REWARDS, TURNS
from tests.simulation.checks.logs import Find, events
from tests.simulation.checks.model import JUNK, ChildEnding, Closed, Ending, Tasks, Turns
from tests.simulation.cluster import EPOCH, Message
from tests.simulation.world import World

SOON_S = 60.0
"""A Tick that changed nothing may stand in the way of the next for half of this."""


class Model:
    """Every partition, read a second time."""

    def __init__(self, world: World) -> None:
        self.turns = [Turns(world, one.name) for one in world.cluster.topics[TURNS.name]]
        self.tasks = [Tasks(world, one.name) for one in world.cluster.topics[EPISODES.name]]
        self.endings = [ending for one in self.turns for ending in one.endings]
        self.closed = [closed for one in self.tasks for closed in one.closed]
        self.letters = {
            place: reason
            for one in (*self.turns, *self.tasks)
            for place, reason in one.letters.items()
        }


@lru_cache(maxsize=1)
def model(world: World) -> Model:
    """Of the world that is being judged."""
    return Model(world)


def _told_at(message: Message) -> float:
    """The time that a stage says something happened at."""
    said = header(message.headers, "ce_time") or ""
    return round(datetime.fromisoformat(said).timestamp(), 3)


def _compare(wanted: list[Any], found: list[Any]) -> Find:
    for one in list((Counter(wanted) - Counter(found)).elements())[:3]:
        yield f"should be, and is not: {one}"
    for one in list((Counter(found) - Counter(wanted)).elements())[:3]:
        yield f"is, and should not be: {one}"


def _episodes(world: World) -> list[tuple[Message, Episode]]:
    found = events(world, EPISODES.name, EpisodesEvent)
    return [(message, event) for message, event in found if isinstance(event, Episode)]


def episodes(world: World) -> Find:
    """Every EpisodeOpened ends as, and when, the broker's log says, with its turns and its reward."""
    found = [
        Ending(
            *(one.episode_id, one.task_id, one.sample, one.outcome, one.n_turns),
            *(one.reward, one.retry, one.closed_at, _told_at(message)),
            tuple(
                ChildEnding(
                    child.episode_id, child.outcome, child.n_turns, child.reward, child.retry
                )
                for child in one.children
            ),
        )
        for message, one in _episodes(world)
    ]
    yield from _compare(model(world).endings, found)


def punctual(world: World) -> Find:
    """What is overdue is closed soon, once nothing is in the way any more."""
    peace = EPOCH + world.scenario.trouble_s
    for one in (*model(world).turns, *model(world).tasks):
        for name, due, at in one.waited:
            if at > max(due, peace) + SOON_S:
                yield f"{name} was closed {at - max(due, peace):.0f} s late"


def resumable(world: World) -> Find:
    """Whoever goes on from a committed mark meets each open story from its opening on.

    And no opening of a closed one: its repeat behind the mark would raise a ghost.
    """
    folded = {"assemble": model(world).turns, "group": model(world).tasks}
    for name, where, low, done in world.commits:
        spans = folded[name][where.partition].spans if name in folded else ()
        for opening, repeat, closing in spans:
            if opening < low <= (done if opening < done <= closing else repeat):
                yield f"{name} committed {low} on {where} at {done}: a story opens at {opening}"


def conversations(world: World) -> Find:
    """Judges are told of each sealed episode once, at its seal."""
    told = events(world, CONVERSATIONS.name, Conversation)
    spoken = [pair for one in model(world).turns for pair in one.spoken]
    yield from _compare(spoken, [(one.episode_id, _told_at(message)) for message, one in told])


def batches(world: World) -> Find:
    """Every GroupOpened comes to one batch: of the samples that count, and why the others do not."""
    found = []
    for message, batch in events(world, BATCHES.name, Batch):
        excluded = sorted((one.sample, one.reason) for one in batch.exclusions)
        counted = [
            (one.sample, one.episode_id, one.partition, one.offset) for one in batch.episodes
        ]
        told = (batch.retries, batch.zero_variance, batch.children_differ, _told_at(message))
        found.append(Closed(batch.task_id, tuple(counted), tuple(excluded), *told))
        for one in batch.episodes:
            entry = world.cluster.topics[one.topic][one.partition].log[one.offset].message
            if entry is None or digest(entry.value or b"") != one.digest:
                yield f"the batch of {batch.task_id} points to nothing for sample {one.sample}"
    yield from _compare(model(world).closed, found)


def letters(world: World) -> Find:
    """What assembler and grouper cannot use is a dead letter, once, with its place and bytes."""
    found = []
    for message in world.cluster.committed(DLQ.name):
        told = {name: value.decode() for name, value in message.headers if name[:4] == "dlq-"}
        if told["dlq-consumer"] not in ("assemble", "group"):
            continue
        place = told["dlq-topic"], int(told["dlq-partition"]), int(told["dlq-offset"])
        reason = told["dlq-reason"]
        known = model(world).letters.get(place)
        found.append((place, JUNK if known == JUNK else reason))
        entry = world.cluster.topics[place[0]][place[1]].log[place[2]].message
        if entry is None or (entry.key, entry.value) != (message.key, message.value):
            yield f"the letter of {place} holds other bytes"
    yield from _compare(list(model(world).letters.items()), found)


def rewards(world: World) -> Find:
    """The intake passes each reward on once, unchanged; what is none is a dead letter."""
    sent = world.cluster.committed(REWARDS.name)
    passed = [
        (message.key, message.value)
        for message, event in events(world, TURNS.name, TurnsEvent)
        if isinstance(event, Reward)
    ]
    passed += [
        (message.key, message.value)
        for message in world.cluster.committed(DLQ.name)
        if header(message.headers, "dlq-consumer") == "intake"
    ]
    yield from _compare([(message.key, message.value) for message in sent], passed)


def revisions(world: World) -> Find:
    """A reward that comes when its episode is closed stands among the revisions, once, unchanged."""
    wanted = [late for one in model(world).turns for late in one.late]
    found = [(message.key, message.value) for message in world.cluster.committed(REVISIONS.name)]
    yield from _compare(wanted, found)


def hosts(world: World) -> Find:
    """Each episode came to what its host had told, once, with each turn counted once."""
    ended: dict[str, list[Episode]] = defaultdict(list)
    for _, episode in _episodes(world):
        ended[episode.episode_id].append(episode)
    for name in ended.keys() - world.hosts.told.keys():
        yield f"episode {name} was never opened by a host"
    for told in world.hosts.told.values():
        found = ended.get(told.episode, [])
        if len(found) != 1:
            yield f"{len(found)} episodes of {told}"
            continue
        (episode,) = found
        if told.sure and (episode.outcome, episode.n_turns) != (told.outcome, told.turns):
            yield f"{told} became {episode.outcome} with {episode.n_turns} turns"
        trained = [turn for run in episode.sequences if not run.child for turn in run.turn_ids]
        if len(trained) != len(set(trained)) or len(trained) > told.turns:
            yield f"{told}: turns are trained twice: {trained}"
