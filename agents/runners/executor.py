"""The context that a user's own A2A executor gets from this host."""

from typing import Any

from a2a.server.tasks import TaskUpdater
from a2a.types import Part
from google.protobuf.json_format import ParseDict, ParseError

from odradek.agents.attempt.executor import ROLLOUT
from odradek.agents.binding.parts import part_of
from odradek.agents.rollout import Rollout


def rollout_of(context: Any) -> Rollout:
    """The Rollout of an A2A `RequestContext`: task, base URL, key, and where rewards go.

    Raises LookupError outside a host of ours.
    """
    try:
        rollout: Rollout = context.call_context.state[ROLLOUT]
    except KeyError:
        raise LookupError("this executor runs outside an Odradek agent host") from None
    return rollout


async def complete(context: Any, event_queue: Any, answer: Any) -> None:
    """End a task with an agent's answer. Raises TypeError for what JSON cannot hold."""
    updater = TaskUpdater(event_queue, context.task_id, context.context_id)
    await updater.complete(updater.new_agent_message([_part(answer)]))


def _part(answer: Any) -> Part:
    """An answer as a part of a message. Raises TypeError for what JSON cannot hold."""
    part = Part()
    try:
        ParseDict(part_of(answer), part)
    except ParseError:
        kind = type(answer).__name__
        raise TypeError(
            f"the agent returned {kind}: an answer is a string or what JSON can hold, or None"
        ) from None
    return part
