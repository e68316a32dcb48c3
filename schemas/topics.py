"""The one table of all topics: keys, partitions, retention, limits, types, who writes and reads.

`odradek topics apply` creates them from here, `odradek topics asyncapi` describes them from here,
and the docs are held against it. Partition counts never change later: keys and ids depend on them.
"""

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.schemas import events
from odradek.schemas.errors import UnknownTopic

DAY_MS: Final = 24 * 3600 * 1000
MB: Final = 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What an agent's or a client group's name may be: it becomes part of topic names."""


class Topic(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    key: str
    partitions: int = 12
    retention_ms: int = 7 * DAY_MS
    """-1: for ever."""
    log_append_time: bool = False
    compact: bool = False
    """Only the newest record of a key stays, and that for the retention."""
    max_bytes: int = 1 * MB
    """Largest record value, before compression."""
    archived: bool = False
    """Whether a replay, or whatever else looks back, reads it: `odradek archive` copies it."""
    types: tuple[Any, ...] = ()
    """Event types, or none where the value is ProtoJSON of A2A or original bytes."""
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    about: str = ""

    @property
    def cleanup(self) -> tuple[str, ...]:
        """What the broker does with old records."""
        if self.compact:
            return ("compact", "delete") if self.retention_ms > 0 else ("compact",)
        return ("delete",)

    @property
    def config(self) -> dict[str, str]:
        """The topic's configuration on the broker."""
        rolled = self.compact and self.retention_ms > 0
        return {
            "cleanup.policy": ",".join(self.cleanup),
            "retention.ms": str(self.retention_ms),
            # Neither reaches into the segment that is being written.
            **({"segment.ms": str(DAY_MS)} if rolled else {}),
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "max.message.bytes": str(self.max_bytes + 64 * 1024),
        }


TASKS: Final = Topic(
    name="rl.tasks.v1",
    key="task_id",
    types=(events.Task,),
    writers=("anyone",),
    readers=("dispatcher",),
    archived=True,
    about="What is to be done. One task is one group of samples.",
)
REWARDS: Final = Topic(
    name="rl.rewards.v1",
    key="episode_id",
    types=(events.Reward,),
    writers=("agent host", "reward services", "people"),
    readers=("intake",),
    about="Judges write here and nowhere else.",
)
TURNS: Final = Topic(
    name="rl.turns.v1",
    key="episode_id",
    log_append_time=True,
    max_bytes=16 * MB,
    types=(
        events.EpisodeOpened,
        events.Turn,
        events.Reward,
        events.EpisodeSealed,
        events.EpisodeAborted,
        events.Tick,
    ),
    writers=("agent host", "proxy", "intake", "assembler"),
    readers=("assembler",),
    archived=True,
    about="One ordered story per episode.",
)
CONVERSATIONS: Final = Topic(
    name="rl.conversations.v1",
    key="episode_id",
    max_bytes=16 * MB,
    types=(events.Conversation,),
    writers=("assembler", "import"),
    readers=("reward services", "viewers", "archives"),
    archived=True,
    about="A sealed episode as words; no token arrays.",
)
EPISODES: Final = Topic(
    name="rl.episodes.v1",
    key="task_id",
    retention_ms=30 * DAY_MS,
    log_append_time=True,
    max_bytes=16 * MB,
    types=(events.GroupOpened, events.Episode, events.Tick),
    writers=("dispatcher", "assembler", "grouper", "import"),
    readers=("grouper", "trainers", "replay"),
    archived=True,
    about="Tokens and reward of each episode. Kept longer than batches, which point here.",
)
BATCHES: Final = Topic(
    name="rl.batches.v1",
    key="task_id",
    partitions=1,
    retention_ms=21 * DAY_MS,
    types=(events.Batch,),
    writers=("grouper", "replay"),
    readers=("trainers", "dispatcher", "sampler"),
    archived=True,
    about="Lists of pointers to episodes. The order here is the training order.",
)
REVISIONS: Final = Topic(
    name="rl.revisions.v1",
    key="episode_id",
    partitions=1,
    retention_ms=EPISODES.retention_ms,
    log_append_time=True,
    types=(events.Reward,),
    writers=("assembler", "rescore"),
    readers=("trainers", "replay", "verify"),
    archived=True,
    about="Rewards for closed episodes. An offset here names a state of all rewards.",
)
MIXED: Final = Topic(
    name="rl.mixed.v1",
    key="task_id",
    partitions=1,
    retention_ms=21 * DAY_MS,
    types=(events.Batch,),
    writers=("sampler",),
    readers=("trainers", "verify"),
    archived=True,
    about="Fresh batches and old ones that the sampler has drawn again, for a trainer of both.",
)
STEPS: Final = Topic(
    name="rl.steps.v1",
    key="run",
    partitions=1,
    retention_ms=30 * DAY_MS,
    types=(events.Step,),
    writers=("trainer",),
    readers=("dispatcher", "sampler", "verify", "replay", "export", "console"),
    archived=True,
    about="The trainer's ledger.",
)
POLICIES: Final = Topic(
    name="rl.policies.v1",
    key="policy name",
    partitions=1,
    compact=True,
    retention_ms=-1,
    types=(events.Policy,),
    writers=("trainer",),
    readers=("proxy", "engines", "console"),
    archived=True,
    about="Which weights are in force.",
)
DLQ: Final = Topic(
    name="rl.dlq.v1",
    key="original key",
    retention_ms=30 * DAY_MS,
    max_bytes=17 * MB,
    writers=("every consumer",),
    readers=("people", "odradek dlq"),
    about="Original bytes of what could not be used; headers say from where and why.",
)
CARDS: Final = Topic(
    name="a2a.cards",
    key="agent",
    partitions=1,
    compact=True,
    retention_ms=-1,
    writers=("agent host",),
    readers=("gateway", "A2A clients"),
    about="Agent cards, as A2A's ProtoJSON.",
)
A2A_REQUESTS: Final = Topic(
    name="a2a.requests.{agent}",
    key="A2A task id, else context id, else message id",
    log_append_time=True,
    writers=("dispatcher", "gateway", "any A2A client"),
    readers=("agent host",),
    about="A2A requests (ProtoJSON); the operation is a header.",
)
A2A_EVENTS: Final = Topic(
    name="a2a.events.{agent}",
    key="A2A task id (= episode_id)",
    writers=("agent host",),
    readers=("anyone",),
    about="A2A StreamResponse (ProtoJSON): the subscription surface.",
)
A2A_TASKS: Final = Topic(
    name="a2a.tasks.{agent}",
    key="A2A task id",
    compact=True,
    retention_ms=A2A_REQUESTS.retention_ms,
    writers=("agent host",),
    readers=("its successors",),
    about="Task snapshots with message id and request offset; kept as long as requests.",
)
A2A_PUSH: Final = Topic(
    name="a2a.push.{agent}",
    key="A2A task id",
    compact=True,
    retention_ms=A2A_REQUESTS.retention_ms,
    writers=("agent host",),
    readers=("its successors", "push dispatcher"),
    about="Push notification configs of a task (ProtoJSON), with their credentials.",
)
A2A_REPLIES: Final = Topic(
    name="a2a.replies.{group}",
    key="correlation id",
    retention_ms=DAY_MS,
    writers=("agent host",),
    readers=("one client group",),
    about="Replies to requests that named a reply address.",
)
A2A_DLQ: Final = Topic(
    name="a2a.dlq.{agent}",
    key="original key",
    retention_ms=30 * DAY_MS,
    max_bytes=17 * MB,
    writers=("agent host", "push dispatcher"),
    readers=("people", "odradek dlq"),
    about="Requests that an agent could not read, and events that a webhook did not take.",
)

TOPICS: Final[tuple[Topic, ...]] = (
    TASKS,
    REWARDS,
    TURNS,
    CONVERSATIONS,
    EPISODES,
    BATCHES,
    REVISIONS,
    MIXED,
    STEPS,
    POLICIES,
    DLQ,
    CARDS,
)
"""Topics that every installation has."""

AGENT_TOPICS: Final[tuple[Topic, ...]] = (
    A2A_REQUESTS,
    A2A_EVENTS,
    A2A_TASKS,
    A2A_PUSH,
    A2A_DLQ,
)
"""Topics that every agent has; `{agent}` stands for its name. Co-partitioned."""

CLIENT_TOPICS: Final[tuple[Topic, ...]] = (A2A_REPLIES,)
"""Topics that a group of A2A clients has; `{group}` stands for its name."""


def agent_topic(row: Topic, agent: str) -> str:
    """The name of an agent's (or a client group's) topic, without prefix."""
    if not NAME.fullmatch(agent):
        raise UnknownTopic(
            f"{agent!r} cannot name topics: use letters, digits, '-' and '_', 63 at most"
        )
    return re.sub(r"\{\w+\}", agent, row.name)


def find(name: str) -> Topic:
    """The row of a topic, by its name without prefix; agents' topics are recognised.

    Raises UnknownTopic, naming the table's topics.
    """
    for row in TOPICS:
        if row.name == name:
            return row
    for row in (*AGENT_TOPICS, *CLIENT_TOPICS):
        stem = row.name.split("{", maxsplit=1)[0]
        if name.startswith(stem) and NAME.fullmatch(name[len(stem) :]):
            return msgspec.structs.replace(row, name=name)
    names = ", ".join(row.name for row in (*TOPICS, *AGENT_TOPICS, *CLIENT_TOPICS))
    raise UnknownTopic(f"no topic {name!r}; there are {names}")
