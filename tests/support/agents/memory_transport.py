"""An agent in this very process, behind the SDK's own handler and store: what Kafka is held against."""

from a2a.client.transports.base import ClientTransport
from a2a.server.agent_execution import AgentExecutor
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import SendMessageResponse, Task, TaskState, TaskStatus
from a2a.utils.proto_utils import to_stream_response


class TaskFirst(AgentExecutor):
    """An agent whose first event is its task, as a host has it."""

    def __init__(self, agent):
        self._agent = agent

    async def execute(self, context, event_queue):
        if context.current_task is None:
            task = Task(
                id=context.task_id,
                context_id=context.context_id,
                status=TaskStatus(state=TaskState.TASK_STATE_WORKING),
                history=[context.message],
            )
            await event_queue.enqueue_event(task)
        await self._agent.execute(context, event_queue)

    async def cancel(self, context, event_queue):
        await self._agent.cancel(context, event_queue)


class MemoryTransport(ClientTransport):
    """The SDK's client transport to an agent in this process."""

    def __init__(self, agent, card):
        self._handler = DefaultRequestHandlerV2(
            agent_executor=TaskFirst(agent), task_store=InMemoryTaskStore(), agent_card=card
        )

    async def send_message(self, request, *, context=None):
        result = await self._handler.on_message_send(request, ServerCallContext())
        kind = "task" if isinstance(result, Task) else "message"
        return SendMessageResponse(**{kind: result})

    async def send_message_streaming(self, request, *, context=None):
        async for event in self._handler.on_message_send_stream(request, ServerCallContext()):
            yield to_stream_response(event)

    async def subscribe(self, request, *, context=None):
        async for event in self._handler.on_subscribe_to_task(request, ServerCallContext()):
            yield to_stream_response(event)

    async def get_task(self, request, *, context=None):
        return await self._handler.on_get_task(request, ServerCallContext())

    async def list_tasks(self, request, *, context=None):
        return await self._handler.on_list_tasks(request, ServerCallContext())

    async def cancel_task(self, request, *, context=None):
        return await self._handler.on_cancel_task(request, ServerCallContext())

    async def create_task_push_notification_config(self, request, *, context=None):
        ask = self._handler.on_create_task_push_notification_config
        return await ask(request, ServerCallContext())

    async def get_task_push_notification_config(self, request, *, context=None):
        ask = self._handler.on_get_task_push_notification_config
        return await ask(request, ServerCallContext())

    async def list_task_push_notification_configs(self, request, *, context=None):
        ask = self._handler.on_list_task_push_notification_configs
        return await ask(request, ServerCallContext())

    async def delete_task_push_notification_config(self, request, *, context=None):
        ask = self._handler.on_delete_task_push_notification_config
        await ask(request, ServerCallContext())

    async def get_extended_agent_card(self, request, *, context=None):
        return await self._handler.on_get_extended_agent_card(request, ServerCallContext())

    async def close(self):
        pass
