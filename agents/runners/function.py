"""A plain async function as an agent."""

from collections.abc import Awaitable, Callable
from typing import Any

from a2a.server.agent_execution import AgentExecutor

from odradek.agents.rollout import Rollout
from odradek.agents.runners.executor import rollout_of

Play = Callable[[Rollout], Awaitable[None]]


class FunctionRunner(AgentExecutor):
    """Awaits the function. What it raises makes the run fail; what it returns is not used."""

    def __init__(self, play: Play) -> None:
        self._play = play

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK."""
        del event_queue
        await self._play(rollout_of(context))

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits."""
