"""A plain async function as an agent."""

from collections.abc import Awaitable, Callable
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Part
from google.protobuf.json_format import ParseDict, ParseError

from odradek.agents.binding.parts import part_of
from odradek.agents.rollout import Rollout
from odradek.agents.runners.executor import rollout_of

Play = Callable[[Rollout], Awaitable[Any]]


class FunctionRunner(AgentExecutor):
    """Awaits the function. What it raises makes the run fail; what it returns is its answer."""

    def __init__(self, play: Play) -> None:
        self._play = play

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK."""
        answer = await self._play(rollout_of(context))
        if answer is not None:
            updater = TaskUpdater(event_queue, context.task_id, context.context_id)
            await updater.complete(updater.new_agent_message([_part(answer)]))

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits."""


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
