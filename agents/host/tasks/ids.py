"""Where the SDK asks for the id of a new task: ours follow from the request."""

from typing import Any

from a2a.server.agent_execution import RequestContext, RequestContextBuilder
from a2a.server.context import ServerCallContext
from a2a.server.id_generator import IDGenerator

TASK_ID = "odradek.task_id"
"""Where the SDK's hook finds the id of the task that a message is to become."""


class _FixedId(IDGenerator):
    """Hands out one id that was worked out before."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id

    def generate(self, context: Any) -> str:
        """See the SDK."""
        del context
        return self._task_id


class ContextBuilder(RequestContextBuilder):
    """The SDK's hook for ids: tasks get the deterministic one of their run."""

    async def build(
        self,
        context: ServerCallContext,
        params: Any = None,
        task_id: str | None = None,
        context_id: str | None = None,
        task: Any = None,
    ) -> RequestContext:
        """See the SDK."""
        return RequestContext(
            call_context=context,
            request=params,
            task_id=task_id,
            context_id=context_id,
            task=task,
            task_id_generator=_FixedId(context.state.get(TASK_ID, "")),
        )
