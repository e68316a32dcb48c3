"""The A2A SDK's ClientTransport over Kafka."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

from a2a.client import ClientCallContext, ClientConfig
from a2a.client.transports.base import ClientTransport
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
    SendMessageRequest,
    SendMessageResponse,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import Parse

from odradek.agents.binding import headers as names
from odradek.agents.binding import operations
from odradek.agents.binding.addresses import agent_at
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import OPERATIONS
from odradek.agents.binding.responses import TERMINAL
from odradek.agents.client.connection import KafkaConnection, ReceivedReply
from odradek.agents.client.event_tail import EventPlace, TailedEvent

PRINCIPAL: Final = "odradek.principal"
"""Where the state of a call context names who asks, if that is not the holder of the key."""
TIMEOUT_S: Final = 600.0
"""How long a call waits where its context says nothing: an agent may work that long."""


class KafkaTransport(ClientTransport):
    """Reaches one agent over Kafka; all eleven operations of A2A 1.0.

    Register it with the SDK, whose clients then reach any agent whose card names this binding:

        factory = ClientFactory(config)
        factory.register(BINDING, KafkaTransport.producer(connection))

    Args:
        connection: The process's place on the bus.
        agent: The agent's name.
        timeout_s: How long a call waits for its reply where its context names no `timeout`.
    """

    def __init__(
        self, connection: KafkaConnection, agent: str, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._connection = connection
        self._agent = agent
        self._timeout_s = timeout_s

    @classmethod
    def producer(
        cls, connection: KafkaConnection
    ) -> Callable[[AgentCard, str, ClientConfig], "KafkaTransport"]:
        """What `ClientFactory.register` wants: makes the transport to a card's address."""

        def produce(card: AgentCard, url: str, config: ClientConfig) -> "KafkaTransport":
            del card, config
            return cls(connection, agent_at(url))

        return produce

    async def send_message(
        self, request: SendMessageRequest, *, context: ClientCallContext | None = None
    ) -> SendMessageResponse:
        """See the SDK."""
        return await self._call(operations.SEND, request, context)

    async def send_message_streaming(
        self, request: SendMessageRequest, *, context: ClientCallContext | None = None
    ) -> AsyncGenerator[StreamResponse, None]:
        """See the SDK: the task as it begins, then its events."""
        async for event in self._stream(operations.STREAM, request, context):
            yield event

    async def subscribe(
        self, request: SubscribeToTaskRequest, *, context: ClientCallContext | None = None
    ) -> AsyncGenerator[StreamResponse, None]:
        """See the SDK: the task as it stands, then its events, none left out and none twice."""
        async for event in self._stream(operations.SUBSCRIBE, request, context):
            yield event

    async def get_task(
        self, request: GetTaskRequest, *, context: ClientCallContext | None = None
    ) -> Task:
        """See the SDK."""
        return await self._call(operations.GET, request, context)

    async def list_tasks(
        self, request: ListTasksRequest, *, context: ClientCallContext | None = None
    ) -> ListTasksResponse:
        """See the SDK."""
        return await self._call(operations.LIST, request, context)

    async def cancel_task(
        self, request: CancelTaskRequest, *, context: ClientCallContext | None = None
    ) -> Task:
        """See the SDK."""
        return await self._call(operations.CANCEL, request, context)

    async def create_task_push_notification_config(
        self, request: TaskPushNotificationConfig, *, context: ClientCallContext | None = None
    ) -> TaskPushNotificationConfig:
        """See the SDK."""
        return await self._call(operations.CREATE_PUSH, request, context)

    async def get_task_push_notification_config(
        self,
        request: GetTaskPushNotificationConfigRequest,
        *,
        context: ClientCallContext | None = None,
    ) -> TaskPushNotificationConfig:
        """See the SDK."""
        return await self._call(operations.GET_PUSH, request, context)

    async def list_task_push_notification_configs(
        self,
        request: ListTaskPushNotificationConfigsRequest,
        *,
        context: ClientCallContext | None = None,
    ) -> ListTaskPushNotificationConfigsResponse:
        """See the SDK."""
        return await self._call(operations.LIST_PUSH, request, context)

    async def delete_task_push_notification_config(
        self,
        request: DeleteTaskPushNotificationConfigRequest,
        *,
        context: ClientCallContext | None = None,
    ) -> None:
        """See the SDK."""
        await self._call(operations.DELETE_PUSH, request, context)

    async def get_extended_agent_card(
        self, request: GetExtendedAgentCardRequest, *, context: ClientCallContext | None = None
    ) -> AgentCard:
        """See the SDK."""
        return await self._call(operations.CARD, request, context)

    async def close(self) -> None:
        """See the SDK. The connection is its owner's."""

    async def _call(self, operation: str, request: Any, context: ClientCallContext | None) -> Any:
        reply = await self._reply(operation, request, context)
        return Parse(reply.value, OPERATIONS[operation].response(), ignore_unknown_fields=True)

    async def _reply(
        self, operation: str, request: Any, context: ClientCallContext | None
    ) -> ReceivedReply:
        parameters = (context.service_parameters if context else None) or {}
        asked = {name.lower(): value for name, value in parameters.items()}
        called = RequestHeaders(
            operation=operation,
            extensions=tuple(filter(None, asked.get(names.EXTENSIONS, "").split(","))),
            tenant=getattr(request, "tenant", ""),
            traceparent=asked.get(names.TRACEPARENT),
            principal=context.state.get(PRINCIPAL, "") if context else "",
        )
        return await self._connection.call(
            self._agent,
            called,
            request,
            key=key_of(operation, request),
            timeout_s=(context.timeout if context else None) or self._timeout_s,
        )

    async def _stream(
        self, operation: str, request: Any, context: ClientCallContext | None
    ) -> AsyncGenerator[StreamResponse, None]:
        first, events = await self.open_stream(operation, request, context)
        async with aclosing(events):
            yield Parse(first.value, StreamResponse(), ignore_unknown_fields=True)
            async for event in events:
                yield event.response()

    async def open_stream(
        self, operation: str, request: Any, context: ClientCallContext | None = None
    ) -> tuple[ReceivedReply, AsyncGenerator[TailedEvent, None]]:
        """Begin a stream: the task as it stands, and its events from there on, as the log has them.

        Args:
            operation: SendStreamingMessage or SubscribeToTask.
            request: The operation's.
            context: See the SDK.

        Raises:
            A2AError: The agent's.
            A2AClientTimeoutError: No reply came in time.
            BusError: The log cannot be written or read.
        """
        # Before the request goes out, so that no event of its task is older than our reading.
        tail = await self._connection.events(self._agent)
        reply = await self._reply(operation, request, context)
        task = Parse(reply.value, StreamResponse(), ignore_unknown_fields=True).task
        if task.status.state in TERMINAL:
            return reply, _nothing()
        return reply, tail.stream(
            task.id,
            generation=int(reply.headers[names.GENERATION]),
            partition=int(reply.headers[names.EVENTS_PARTITION]),
            offset=int(reply.headers[names.EVENTS_OFFSET]),
        )

    async def resume_stream(
        self, task_id: str, seen: EventPlace, *, over: bool = False
    ) -> AsyncGenerator[TailedEvent, None]:
        """A task's events behind what was read of them. Asks the agent nothing.

        Args:
            task_id: Which task.
            seen: How far its stream was read.
            over: Whether the task has ended: the log has all of its events.

        Raises:
            InvalidParamsError: No event of the task can stand there.
            PositionLost: While it is read: retention has deleted what follows.
            BusError: The log cannot be read.
        """
        tail = await self._connection.events(self._agent)
        if not tail.holds(task_id, seen):
            raise InvalidParamsError(f"{seen} is no place of an event of task {task_id}")
        if over:
            return tail.past(task_id, seen)
        return tail.stream(
            task_id, generation=seen.generation, partition=seen.partition, offset=seen.offset
        )


async def _nothing() -> AsyncGenerator[TailedEvent, None]:
    """The events of a task that is over."""
    none: tuple[TailedEvent, ...] = ()
    for event in none:
        yield event


def key_of(operation: str, request: Any) -> str:
    """The key of a request's record: its task's id, else its context's, else its message's.

    So what belongs together reaches the host that has it, in order. "" where any host will do.
    """
    if isinstance(request, SendMessageRequest):
        message = request.message
        key: str = message.task_id or message.context_id or message.message_id
        return key
    field = OPERATIONS[operation].task
    return getattr(request, field) if field else ""
