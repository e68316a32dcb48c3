"""Streams of server-sent events: each event as the log has it, read once for all streams.

The SDK's own would read and write every event anew for each stream. Here an event's value goes out
as it stands in its record, with its place as the event's id: a client that sends the last one back
(`Last-Event-ID`) goes on behind it, at this gateway or another.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import msgspec
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.types import GetTaskRequest, SendMessageRequest, SubscribeToTaskRequest
from a2a.utils.constants import PROTOCOL_VERSION_1_0
from a2a.utils.error_handlers import build_rest_error_payload, rest_stream_error_handler
from a2a.utils.errors import A2AError, InvalidParamsError
from a2a.utils.version_validator import validate_version
from google.protobuf.json_format import Parse, ParseDict, ParseError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from odradek.agents.binding import headers as names
from odradek.agents.binding.responses import TERMINAL, read_stream, stream_value
from odradek.agents.client.event_tail import EventPlace
from odradek.agents.gateway.bus_handler import BusHandler, as_a2a
from odradek.agents.gateway.sse import EventResponse
from odradek.infra.errors import PositionLost

log = logging.getLogger("odradek.agents")

METHODS: Final = {
    "SendStreamingMessage": SendMessageRequest,
    "SubscribeToTask": SubscribeToTaskRequest,
}
"""JSON-RPC's methods that stream, and their parameters."""
LAST_EVENT_ID: Final = "last-event-id"

Frames = AsyncGenerator[bytes, None]
Wrap = Callable[[bytes], bytes]
"""Makes an event's data of its value."""


class EventStreams:
    """The streaming operations of an agent, over HTTP.

    Args:
        handler: Asks the agent.
        contexts: Makes the SDK's context of a request.
        longest_s: How long a stream goes on.
    """

    def __init__(
        self, handler: BusHandler, contexts: ServerCallContextBuilder, *, longest_s: float
    ) -> None:
        self._handler = handler
        self._contexts = contexts
        self._longest_s = longest_s

    def rest_routes(self) -> list[BaseRoute]:
        """Routes of REST, to stand before the SDK's."""
        return [
            route
            for tenant in ("", "/{tenant}")
            for route in (
                Route(f"{tenant}/message:stream", self._send, methods=["POST"]),
                Route(f"{tenant}/tasks/{{id}}:subscribe", self._subscribe, methods=["GET", "POST"]),
            )
        ]

    @rest_stream_error_handler
    async def _send(self, request: Request) -> Response:
        try:
            params = Parse(await request.body(), SendMessageRequest(), ignore_unknown_fields=True)
        except ParseError as error:
            raise InvalidParamsError(f"the body is no SendMessageRequest: {error}") from None
        return self._answer(await self._begin(params, self._context(request)), _rest_error)

    @rest_stream_error_handler
    async def _subscribe(self, request: Request) -> Response:
        params = SubscribeToTaskRequest(id=request.path_params["id"])
        return self._answer(await self._begin(params, self._context(request)), _rest_error)

    async def json_rpc(self, request: Request) -> Response | None:
        """Answer a JSON-RPC request that streams; None for one that the SDK is to answer.

        It answers those that do not stream, and says what is wrong with those that are none.
        """
        try:
            body = await request.json()  # kept by the request for the SDK
        except ValueError:
            return None
        params_type = METHODS.get(body["method"]) if _is_call(body) else None
        if params_type is None:
            return None
        try:
            params = ParseDict(body.get("params", {}), params_type(), ignore_unknown_fields=True)
        except ParseError:
            return None
        number = body.get("id")
        before = b'{"jsonrpc":"2.0","id":' + msgspec.json.encode(number) + b',"result":'
        context = self._context(request)
        context.tenant = params.tenant
        try:
            frames = await self._begin(params, context, lambda value: before + value + b"}")
        except A2AError as error:
            return JSONResponse(build_error_response(number, error))
        return self._answer(
            frames, lambda error: b"data: " + _json(build_error_response(number, error))
        )

    def _context(self, request: Request) -> ServerCallContext:
        context = self._contexts.build(request)
        if tenant := request.path_params.get("tenant"):
            context.tenant = tenant
        return context

    async def _begin(self, params: Any, context: ServerCallContext, wrap: Wrap = bytes) -> Frames:
        """A stream from its beginning, or behind the event that its client has seen last."""
        seen = EventPlace.read(context.state["headers"].get(LAST_EVENT_ID, ""))
        if seen is not None and isinstance(params, SubscribeToTaskRequest):
            return await self._resume(seen, params.id, context, wrap)
        return await self._open(params, context, wrap, seen)

    @validate_version(PROTOCOL_VERSION_1_0)
    async def _open(
        self,
        params: Any,
        context: ServerCallContext,
        wrap: Wrap,
        seen: EventPlace | None = None,
    ) -> Frames:
        reply, events = await self._handler.open_stream(params, context)
        place = EventPlace(
            int(reply.headers[names.EVENTS_PARTITION]),
            int(reply.headers[names.EVENTS_OFFSET]),
            int(reply.headers[names.GENERATION]),
        )

        if seen is not None and seen.precedes(place):
            await events.aclose()
            task = read_stream(reply.value).task
            return await self._resume(seen, task.id, context, wrap)

        async def frames() -> Frames:
            async with aclosing(events):
                yield _frame(place, wrap(reply.value))
                async for event in events:
                    yield _frame(event.place, wrap(event.value))

        return frames()

    @validate_version(PROTOCOL_VERSION_1_0)
    async def _resume(
        self, seen: EventPlace, task_id: str, context: ServerCallContext, wrap: Wrap
    ) -> Frames:
        events = await self._handler.resume_stream(seen, task_id, context)

        async def frames() -> Frames:
            async with aclosing(events):
                try:
                    async for event in events:
                        yield _frame(event.place, wrap(event.value))
                except PositionLost:
                    lost = True  # retention has deleted what follows
                else:
                    lost = False
            if not lost:
                return
            # The task as it stands says it all.
            task = await self._handler.on_get_task(GetTaskRequest(id=task_id), context)
            if task.status.state in TERMINAL:
                yield _frame(seen, wrap(stream_value(task)))
                return
            async for frame in await self._open(SubscribeToTaskRequest(id=task_id), context, wrap):
                yield frame

        return frames()

    def _answer(self, frames: Frames, error_frame: Callable[[A2AError], bytes]) -> Response:
        """A stream of events, which ends with an error where reading them does."""

        async def guarded() -> Frames:
            async with aclosing(frames):
                try:
                    with as_a2a():
                        async for frame in frames:
                            yield frame
                except A2AError as error:
                    log.warning("a stream ends: %s", error)
                    yield error_frame(error) + b"\r\n\r\n"

        return EventResponse(guarded(), longest_s=self._longest_s)


def _is_call(body: Any) -> bool:
    """Whether a body is a call by JSON-RPC 2.0 whose id we may say again."""
    return (
        isinstance(body, dict)
        and body.get("jsonrpc") == "2.0"
        and isinstance(body.get("method"), str)
        and isinstance(body.get("params", {}), dict)
        and not isinstance(body.get("id"), bool)
        and isinstance(body.get("id"), str | int | None)
    )


def _frame(place: EventPlace, data: bytes) -> bytes:
    """An event on the wire. A value is JSON in one line."""
    return b"id: %b\r\ndata: %b\r\n\r\n" % (str(place).encode(), data)


def _rest_error(error: A2AError) -> bytes:
    return b"event: error\r\ndata: " + _json(build_rest_error_payload(error))


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
