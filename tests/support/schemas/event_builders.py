"""Short ways to tell a story: the events of episodes and tasks, and a log to feed them from."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Raw

from odradek.infra.bus import OutgoingRecord, Record
from odradek.schemas import codec, events
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.topics import EPISODES, TURNS, Topic
from odradek.streams.partition import StagePartition
from odradek.streams.stage import DeadLetter, Emit, Stage

TIMES = events.Timeouts(call_s=5, attempt_s=10, seal_s=2, reward_s=6, group_s=60)


def opened(episode: str = "e1", **more: Any) -> events.EpisodeOpened:
    """An attempt that wants the component "game"."""
    fields: dict[str, Any] = {
        "task_id": "t1",
        "agent": "hilo",
        "sample": 0,
        "group_size": 2,
        "rewards": {"game": 1.0},
        "timeouts": TIMES,
    }
    return events.EpisodeOpened(episode_id=episode, **(fields | more))


def turn(
    episode: str = "e1",
    seq: int = 0,
    *,
    prompt: Sequence[int] = (1, 2),
    sampled: Sequence[int] = (3,),
    writer: str = "w1",
    base: str = "",
    prefix: int = 0,
    **more: Any,
) -> events.Turn:
    """A captured call; `prompt` holds the ids after `prefix` ids of turn `base`."""
    return events.Turn(
        episode_id=episode,
        turn_id=more.pop("turn_id", f"{episode}/{writer}/{seq}"),
        writer=writer,
        seq=seq,
        request=more.pop(
            "request", events.Request(messages=(Raw(b'{"role":"user","content":"hi"}'),))
        ),
        reply=events.Reply(message=Raw(b'{"role":"assistant","content":"yo"}')),
        prompt=events.Prompt(base=base, prefix_len=prefix, ids=pack_ids(list(prompt))),
        completion=events.Completion(
            ids=pack_ids(list(sampled)),
            logprobs=more.pop("logprobs", pack_floats([-0.5] * len(sampled))),
        ),
        versions=more.pop("versions", (events.VersionSpan(1, 0, len(sampled)),)),
        usage=events.Usage(prompt_tokens=prefix + len(prompt), completion_tokens=len(sampled)),
        **more,
    )


def reward(episode: str = "e1", value: float = 1.0, component: str = "game") -> events.Reward:
    """A verdict of the agent's host."""
    return events.Reward(episode_id=episode, component=component, value=value, source="/agent/hilo")


def sealed(
    episode: str = "e1", n: int = 1, writer: str = "w1", **more: Any
) -> events.EpisodeSealed:
    """The end of an episode of n turns."""
    return events.EpisodeSealed(episode_id=episode, writer=writer, n_turns=n, **more)


def aborted(episode: str = "e1", **more: Any) -> events.EpisodeAborted:
    """An episode given up."""
    return events.EpisodeAborted(episode_id=episode, **more)


def expected(task: str = "t1", size: int = 2, **more: Any) -> events.GroupOpened:
    """A group begins."""
    return events.GroupOpened(task_id=task, agent="hilo", group_size=size, group_s=60, **more)


def episode(sample: int = 0, name: str = "", *, task: str = "t1", **more: Any) -> events.Episode:
    """A finished sample; the reward is its number unless told."""
    fields: dict[str, Any] = {
        "agent": "hilo",
        "group_size": 2,
        "reward": float(sample),
    }
    return events.Episode(
        episode_id=name or f"{task}-{sample}", task_id=task, sample=sample, **(fields | more)
    )


def key_of(event: Any, topic: Topic = TURNS) -> str | None:
    """The key that an event has on a topic."""
    if isinstance(event, events.Tick):
        return None
    return event.task_id if topic is EPISODES else event.episode_id


class Log:
    """One partition of a topic, whose append times are given by hand."""

    def __init__(self, topic: Topic = TURNS) -> None:
        self.topic = topic
        self.records: list[Record] = []

    def add(self, event: Any, at: float = 0.0, **more: Any) -> Record:
        """Append an event, or raw bytes with `key`."""
        raw = isinstance(event, bytes) or event is None
        record = Record(
            self.topic.name,
            0,
            len(self.records),
            more.get("key") if raw else more.get("key", key_of(event, self.topic)),
            event if raw else codec.encode(event),
            (),
            at,
        )
        self.records.append(record)
        return record


def tell(stage: Stage, told: Iterable[Any], *, at: float = 0.0) -> tuple[list[Any], list[str]]:
    """Fold events; return the emitted events and the reasons of dead letters.

    A pair (event, time) is appended at that time, a bare event at `at`.
    """
    log = Log(stage.source)
    for one in told:
        event, time = one if isinstance(one, tuple) else (one, at)
        log.add(event, time)
    fold = stage.fold()
    out: list[Any] = []
    letters: list[str] = []
    for record in log.records:
        for output in fold.feed(record, codec.decode(record.value, stage.kind)):
            if isinstance(output, Emit):
                out.append(output.event)
            elif isinstance(output, DeadLetter):
                letters.append(output.reason)
    return out, letters


def written(stage: Stage, records: Iterable[Record]) -> list[OutgoingRecord]:
    """What a partition writes because of these records."""
    return StagePartition(stage, 0).feed(records)
