"""Server-sent events of an agent, by task and by state, for any HTTP client (HTML, section 9.2).

All streams of an agent are fed by the one reader that the gateway has of its events. The id of an
event is a position, so a client that comes back with `Last-Event-ID` misses nothing.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from odradek.agents.client.connection import KafkaConnection
from odradek.agents.client.event_tail import EventTail
from odradek.agents.errors import InvalidPosition, UnknownState
from odradek.agents.gateway.access.door import PRINCIPAL
from odradek.agents.gateway.sse import EventResponse
from odradek.agents.subscriptions.event import EventSelection
from odradek.agents.subscriptions.position import EventPosition
from odradek.agents.subscriptions.subscribe import begin_at
from odradek.infra.bus import BusSettings, consumer, partitions_of, running
from odradek.infra.errors import BusError, InvalidTime
from odradek.schemas.topics import A2A_EVENTS, agent_topic

PATH: Final = "/events"


class EventRoutes:
    """Streams of an agent's events.

    Args:
        agent: Whose.
        bus: Where Kafka is.
        connection: The gateway's place on the bus.
        longest_s: How long a stream goes on.
    """

    def __init__(
        self, agent: str, bus: BusSettings, connection: KafkaConnection, *, longest_s: float
    ) -> None:
        self._agent = agent
        self._bus = bus
        self._connection = connection
        self._longest_s = longest_s

    @property
    def routes(self) -> list[Route]:
        """`GET /events?task=…&state=…&since=…`."""
        return [Route(PATH, self._stream, methods=["GET"])]

    async def _stream(self, request: Request) -> Response:
        query = request.query_params
        words = [word for text in query.getlist("state") for word in text.split(",") if word]
        place = request.headers.get("last-event-id") or query.get("since") or "end"
        try:
            selection = EventSelection(tuple(words), query.get("task", ""), _principal(request))
            tail = await self._connection.events(self._agent)
            start = await self._start(tail, place)
        except (InvalidPosition, InvalidTime, UnknownState) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        frames = self._events(tail, selection, start)
        return EventResponse(frames, longest_s=self._longest_s)

    async def _start(self, tail: EventTail, place: str) -> dict[int, int]:
        """Where a stream begins. Raises InvalidPosition, InvalidTime."""
        if place == "end":
            return tail.ends
        topic = agent_topic(A2A_EVENTS, self._agent)
        begin = begin_at(self._bus, topic, int(place) if place.isdigit() else place)
        # A position is held against the log, too: retention may have deleted what is behind it.
        async with running(consumer(self._bus), self._bus) as reader:
            partitions = await partitions_of(reader, self._bus.topic(topic))
            places = await begin(reader, partitions)
        return {where.partition: offset for where, offset in places.items()}

    async def _events(
        self, tail: EventTail, selection: EventSelection, start: dict[int, int]
    ) -> AsyncGenerator[bytes, None]:
        position = EventPosition(start)
        yield ServerSentEvent(id=str(position), comment=f"events of {self._agent}").encode()
        try:
            async with aclosing(tail.all_records(start)) as records:
                async for record in records:
                    position = position.after(record.partition, record.offset)
                    event = selection.event(record, position)
                    if event is not None:
                        yield ServerSentEvent(
                            event.value.decode(), event=event.kind, id=str(position)
                        ).encode()
        except BusError as error:
            # The client comes back with the id of the last event that it has.
            yield ServerSentEvent(f"the log is not there: {error}", event="error").encode()


def _principal(request: Request) -> str | None:
    """Whose events a caller may see; None: all, where the gateway asks nobody who they are."""
    principal: Any = request.scope.get(PRINCIPAL)
    return str(principal) if principal else None
