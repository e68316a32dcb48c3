"""Who reads what: the consumer groups of our processes, and the trainers of the ledger. Pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct

from odradek.schemas.topics import A2A_REQUESTS, BATCHES, CONVERSATIONS, STEPS, TASKS, agent_topic
from odradek.streams.stage import Stage

DISPATCHER: Final = "dispatcher"
"""The dispatcher's group."""
SAMPLER: Final = "sample"
"""The sampler's."""
REQUESTS: Final = A2A_REQUESTS.name.partition("{")[0]
"""How the topics of agents' requests begin."""
TRAINER: Final = "trainer"
"""The process that leads."""


class Reading(Struct, frozen=True):
    """A process, and a topic that it reads to do something for each record."""

    process: str
    """Its name in a project."""
    topic: str
    """Without prefix."""
    group: str = ""
    """Its consumer group without prefix; none of a trainer, whose position is in the ledger."""
    position: int = 0
    """Of a trainer: the offset of the first batch that it has not passed."""
    purpose: str = ""
    """Of a trainer: it passes batches of other purposes without work."""


class LedgerHead(Struct, frozen=True):
    """What a ledger entry says about its trainer's place."""

    run: str
    position: int
    topic: str = BATCHES.name
    sampled_by: str = ""


class Trainers:
    """The trainers that write to the ledger, from its newest entries."""

    def __init__(self) -> None:
        self._newest: dict[str, LedgerHead] = {}

    def hear(self, entry: LedgerHead) -> None:
        """The next entry. One run leads at a time; the others name the one that does."""
        self._newest[entry.run if entry.sampled_by else ""] = entry

    def readings(self) -> list[Reading]:
        """The one that leads, who is there in any case, and those beside it."""
        leading = self._newest.get("", LedgerHead("", 0))
        beside = [entry for run, entry in sorted(self._newest.items()) if run]
        return [_training(TRAINER, leading)] + [
            _training(f"{TRAINER}-{entry.run}", entry) for entry in beside
        ]


def _training(process: str, entry: LedgerHead) -> Reading:
    return Reading(process, entry.topic, position=entry.position, purpose="train")


def readings(
    topics: Collection[str], groups: Iterable[str], stages: Mapping[str, Stage]
) -> list[Reading]:
    """The processes that are members of consumer groups, in the order of the data.

    Dispatcher, stages and hosts are there before their first start: their records wait for them.

    Args:
        topics: Names of those that there are, without prefix.
        groups: Names of the groups that there are, without prefix.
        stages: By the names of their processes.
    """
    left = set(groups)
    agents = sorted(topic.removeprefix(REQUESTS) for topic in topics if topic.startswith(REQUESTS))
    found = [Reading("dispatcher", TASKS.name, DISPATCHER)]
    found += [
        Reading(f"agent-{agent}", agent_topic(A2A_REQUESTS, agent), f"agent.{agent}")
        for agent in agents
    ]
    found += [Reading(name, stage.source.name, stage.name) for name, stage in stages.items()]
    found += [
        Reading(group, CONVERSATIONS.name, group)
        for group in sorted(left)
        if group.startswith("reward-")
    ]
    if SAMPLER in left:
        found += [Reading("sampler", topic.name, SAMPLER) for topic in (BATCHES, STEPS)]
    return found


def others(groups: Iterable[str], known: Iterable[Reading]) -> list[str]:
    """Groups that no reading is of, such as subscriptions to events.

    A re-scoring is not among them: it judges what there was when it began, and is over.
    """
    listed = {reading.group for reading in known}
    return sorted(
        group for group in groups if group not in listed and not group.startswith("rescore-")
    )
