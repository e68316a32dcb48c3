"""Agents: the host that runs them over A2A on Kafka, and the dispatcher that feeds it.

`dispatch` turns tasks into A2A requests, `host` takes them and makes an `attempt` of each, which a
`runner` plays: a function, a program, a coding agent (`harnesses`) or an A2A executor. `binding`
says how A2A stands in records. `subscriptions` read an agent's events, `push` posts them to
webhooks. `replicas` keep the tasks of an A2A server that is none of our hosts. What people write
against are `Rollout` and `subscribe`; importing them costs nothing of A2A or Kafka.
"""

import importlib
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING

from odradek.agents.rollout import Rollout, UpstreamUnavailable

if TYPE_CHECKING:
    from odradek.agents.replicas.event_stream import KafkaTaskEventStream
    from odradek.agents.replicas.task_store import KafkaTaskStore
    from odradek.agents.subscriptions.event import AgentEvent
    from odradek.agents.subscriptions.position import EventPosition
    from odradek.infra.bus import BusSettings

__all__ = [
    "KafkaTaskEventStream",
    "KafkaTaskStore",
    "Rollout",
    "UpstreamUnavailable",
    "subscribe",
]


_SEAMS = {
    "KafkaTaskEventStream": "replicas.event_stream",
    "KafkaTaskStore": "replicas.task_store",
}
"""Name: the module that has it."""


def __getattr__(name: str) -> object:
    """The SDK's seams, imported when they are asked for."""
    if name in _SEAMS:
        return getattr(importlib.import_module(f"odradek.agents.{_SEAMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def subscribe(
    agent: str,
    *,
    state: str | Iterable[str] = (),
    since: "str | int | float | EventPosition" = "end",
    task_id: str = "",
    group: str = "",
    follow: bool = True,
    bus: "BusSettings | None" = None,
    ready: Callable[[], None] | None = None,
) -> "AsyncGenerator[AgentEvent, None]":
    """Read an agent's events as they come.

        async for event in subscribe("hilo", state="completed"):
            print(event.task_id, event.json)

    None is left out, and of a task none comes before an earlier one. Who keeps `event.position` and
    gives it back as `since` goes on with the next event, also after a restart. With a group, Kafka
    keeps the position: its members share the events, and an event is over when its reader asks
    for the next one. What was under way at a crash or a rebalance comes again.

    Args:
        agent: Whose events.
        state: Only events that tell this task state, or one of these: `completed`,
            `input-required`, …
        since: Where to begin: `beginning`, `end`, a time (`-1h`, an ISO time, Unix seconds as a
            float), an offset, or an event's position, also as text. For a group, where it begins
            when it has no progress.
        task_id: Only of this task.
        group: Names the readers that share the events; "": this one reads alone.
        follow: Go on for ever; else end where the events ended when reading began. Not for groups.
        bus: Where Kafka is; from `ODRADEK_KAFKA_*` if not given.
        ready: Called once it is known where reading begins: later events will be seen.

    Raises:
        UnknownState: The state is none of A2A's.
        InvalidTime, InvalidPosition: `since` names no place.
        TopicMissing: The agent has no topics.
    """
    from odradek.agents.subscriptions.event import EventSelection
    from odradek.agents.subscriptions.subscribe import events_of, events_of_group
    from odradek.infra.bus import BusSettings

    selection = EventSelection((state,) if isinstance(state, str) else tuple(state), task_id)
    where = bus or BusSettings()
    if group:
        return events_of_group(
            agent, selection=selection, since=since, group=group, bus=where, ready=ready
        )
    return events_of(
        agent, selection=selection, since=since, follow_on=follow, bus=where, ready=ready
    )
