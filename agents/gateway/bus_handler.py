"""The SDK's request handler that serves nothing itself: it asks an agent over Kafka."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from a2a.client import ClientCallContext
from a2a.client.errors import A2AClientTimeoutError
from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InternalError, UnsupportedOperationError

from odradek.agents.binding import headers as names
from odradek.agents.binding import operations
from odradek.agents.binding.responses import TERMINAL
from odradek.agents.client.connection import ReceivedReply
from odradek.agents.client.event_tail import EventPlace, TailedEvent
from odradek.agents.client.transport import PRINCIPAL, KafkaTransport
from odradek.infra.errors import BusError


class BusHandler(RequestHandler):
    """Hands each operation to a transport, and its reply or error back.

    Args:
        transport: To the agent.
        shown: Makes of an agent's card the one that the gateway shows.
        stream_s: How long a stream goes on.
    """

    def __init__(
        self,
        transport: KafkaTransport,
        shown: Callable[[AgentCard], AgentCard],
        *,
        stream_s: float,
    ) -> None:
        self._transport = transport
        self._shown = shown
        self._stream_s = stream_s

    @validate_request_params
    async def on_message_send(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> Task | Message:
        """See the SDK."""
        reply = await self._ask(self._transport.send_message, params, context)
        return reply.message if reply.HasField("message") else reply.task

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """See the SDK."""
        stream = self._transport.send_message_streaming(params, context=called(context))
        async for event in self._events(stream):
            yield event

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """See the SDK."""
        stream = self._transport.subscribe(params, context=called(context))
        async for event in self._events(stream):
            yield event

    @validate_request_params
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        """See the SDK."""
        return await self._ask(self._transport.get_task, params, context)

    @validate_request_params
    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        """See the SDK."""
        return await self._ask(self._transport.list_tasks, params, context)

    @validate_request_params
    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """See the SDK."""
        return await self._ask(self._transport.cancel_task, params, context)

    @validate_request_params
    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """See the SDK."""
        ask = self._transport.create_task_push_notification_config
        return await self._ask(ask, params, context)

    @validate_request_params
    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """See the SDK."""
        ask = self._transport.get_task_push_notification_config
        return await self._ask(ask, params, context)

    @validate_request_params
    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """See the SDK."""
        ask = self._transport.list_task_push_notification_configs
        return await self._ask(ask, params, context)

    @validate_request_params
    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """See the SDK."""
        await self._ask(self._transport.delete_task_push_notification_config, params, context)

    @validate_request_params
    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """See the SDK. It is for callers whom the gateway has authenticated."""
        if not context.user.is_authenticated:
            raise UnsupportedOperationError("the extended card is for authenticated callers")
        card = await self._ask(self._transport.get_extended_agent_card, params, context)
        return self._shown(card)

    @validate_request_params
    async def open_stream(
        self, params: SendMessageRequest | SubscribeToTaskRequest, context: ServerCallContext
    ) -> tuple[ReceivedReply, AsyncGenerator[TailedEvent, None]]:
        """Begin a stream whose events stay as the log has them. Raises A2AError."""
        sends = isinstance(params, SendMessageRequest)
        operation = operations.STREAM if sends else operations.SUBSCRIBE
        with as_a2a():
            return await self._transport.open_stream(operation, params, called(context))

    async def resume_stream(
        self, seen: EventPlace, task_id: str, context: ServerCallContext
    ) -> AsyncGenerator[TailedEvent, None]:
        """A stream that goes on behind an event which its client has seen.

        Raises TaskNotFoundError where the caller may not see the task.
        """
        task = await self._ask(self._transport.get_task, GetTaskRequest(id=task_id), context)
        with as_a2a():
            over = task.status.state in TERMINAL
            return await self._transport.resume_stream(task_id, seen, over=over)

    async def _ask(self, ask: Any, params: Any, context: ServerCallContext) -> Any:
        with as_a2a():
            return await ask(params, context=called(context))

    async def _events(
        self, stream: AsyncGenerator[StreamResponse, None]
    ) -> AsyncGenerator[Event, None]:
        ends_at = asyncio.get_running_loop().time() + self._stream_s
        async with aclosing(stream):
            with as_a2a():
                while True:
                    try:
                        async with asyncio.timeout_at(ends_at):
                            response = await anext(stream)
                    except (StopAsyncIteration, TimeoutError):
                        return
                    yield getattr(response, response.WhichOneof("payload"))


@contextmanager
def as_a2a() -> Iterator[None]:
    """Errors of the bus as A2A's."""
    try:
        yield
    except BusError as error:
        raise InternalError(f"the log is not there: {error}") from None
    except A2AClientTimeoutError as error:
        raise InternalError(str(error)) from None


def called(context: ServerCallContext) -> ClientCallContext:
    """What a caller asked for, for the call on the bus."""
    asked = {
        names.EXTENSIONS: ",".join(sorted(context.requested_extensions)),
        names.TRACEPARENT: context.state.get("headers", {}).get(names.TRACEPARENT, ""),
    }
    return ClientCallContext(
        service_parameters={key: text for key, text in asked.items() if text},
        state={PRINCIPAL: context.user.user_name if context.user.is_authenticated else ""},
    )
