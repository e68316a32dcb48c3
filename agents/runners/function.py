"""A plain async function as an agent."""

from collections.abc import Awaitable, Callable
from typing import Any

from a2a.server.agent_execution import AgentExecutor

from odradek.agents.rollout import Rollout
from odradek.agents.runners.executor import complete, rollout_of

Play = Callable[[Rollout], Awaitable[Any]]


class FunctionRunner(AgentExecutor):
    """Awaits the function. What it raises makes the run fail; what it returns is its answer."""

    def __init__(self, play: Play) -> None:
        self._play = play

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK."""
        answer = await self._play(rollout_of(context))
        if answer is not None:
            await complete(context, event_queue, answer)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits."""
