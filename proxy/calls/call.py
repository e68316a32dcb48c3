"""A call in flight: whose it is, how long it may take, and who waits for its reply."""

import asyncio
import re
import time
from typing import Final, Protocol

from aiohttp import web

from odradek.proxy.auth import Permit
from odradek.proxy.calls.keepalive import AgentStream
from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.engines.client import EngineAttempt
from odradek.proxy.engines.versions import SentVersion
from odradek.proxy.episodes.draft import RecordedReply
from odradek.proxy.episodes.episode import InFlight, LiveEpisode
from odradek.proxy.episodes.prefix_reuse import PromptSource
from odradek.proxy.errors import (
    BadRequest,
    BodyTooLarge,
    EngineError,
    EngineSlow,
    EpisodeClosed,
    ProxyError,
)
from odradek.schemas.events import Timing

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
OPERATIONS: Final = {"completions": "text_completion", "gemini": "generate_content"}
"""By dialect, GenAI's names of operations; all others are `chat`."""
SEALED: Final = "sealed while in flight"
LEFT: Final = "the client left"
RETRY_COUNT: Final = "x-stainless-retry-count"


class Relay(Protocol):
    """A stream on its way from the engine to an agent."""

    @property
    def rest(self) -> bytes:
        """The end, and what has waited for it."""

    def fail(self, error: ProxyError) -> bytes:
        """What the agent gets in place of the end."""


class ModelCall:
    """A call in flight."""

    def __init__(
        self,
        client: web.Request,
        request: ParsedRequest,
        episode: LiveEpisode,
        permit: Permit,
        *,
        call_s: float,
    ) -> None:
        self.client = client
        self.request = request
        self.episode = episode
        self.permit = permit
        self.headers = client.headers
        self.retries = repeated(client)
        self.supersedes: tuple[str, ...] = ()
        self.follows = False
        """It waits for another call's reply."""
        self.ended_by = ""
        self.gone_since: float | None = None
        self.started_at = time.time()
        self.begun = time.perf_counter()
        self.ttft_ms: float | None = None
        self.error_code = ""
        """Why it got no good reply, for metrics."""
        self.limit_s = min(permit.call_s or call_s, call_s)
        """How long it may take in all."""
        self.limit: asyncio.Timeout | None = None
        """Of the engine's part, once that begins."""
        self.asked_at: float | None = None
        """When its first engine was asked (`perf_counter`)."""
        self.attempt = EngineAttempt()
        self.attempts = 1
        """Engines that were asked for it, one after the other."""
        self.engine = ""
        """The engine whose answer is there; "" while there is none."""
        self.tried: set[str] = set()
        """Engines that gave it no good reply."""
        self.line: AgentStream | None = None
        """The agent's side of it, if it streams."""
        self.relay: Relay | None = None
        """What passed its reply on to the agent, of which only the end is left."""
        self.doubt = ""
        """Why nothing that its engine samples can be trained on."""
        self.sent: SentVersion | None = None
        """What was known of the engine that answers it, once one does."""
        self.traceparent: str | None = None
        self.body = request.body
        """What goes to the engine."""
        self.prompt_source: PromptSource | None = None
        """How its prompt came about, where prompts carry ids on."""
        self._waiter: asyncio.Future[RecordedReply] | None = None

    @property
    def parent(self) -> str | None:
        """The trace that it belongs to: its header's (W3C Trace Context), or its run's."""
        named = self.headers.get("traceparent")
        return named if named and TRACEPARENT.fullmatch(named) else self.permit.trace or None

    @property
    def path(self) -> str:
        """The engine's route for it."""
        return self.request.dialect.path

    def taken(self) -> bool:
        """Whether an engine has this call: no other one will be asked for want of an answer."""
        return bool(self.engine) or self.attempt.has_call()

    @property
    def gone(self) -> bool:
        """Whether nobody waits for this call's reply."""
        transport = self.client.transport
        return transport is None or transport.is_closing()

    @property
    def joined(self) -> bool:
        """Whether a retry waits for this call's reply."""
        return self._waiter is not None

    def join(self, other: InFlight) -> asyncio.Future[RecordedReply]:
        """Hand this call's reply to a retry of its client."""
        # The retry before this one has left, too: it would wait for ever, and its episode's seal.
        self.fail(EngineSlow("a later try took this one's place"))
        self.client = other.client
        self.retries = other.retries
        self.gone_since = None
        other.follows = True
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def resolve(self, result: RecordedReply) -> None:
        """The reply is there."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(result)

    def fail(self, error: BaseException) -> None:
        """No reply will come."""
        if self._waiter is not None and not self._waiter.done():
            ours = error if isinstance(error, ProxyError) else EngineSlow("the call was given up")
            self._waiter.set_exception(ours)

    def stop(self, why: str, *, in_s: float) -> None:
        """Give the engine that many seconds more."""
        self.ended_by = self.ended_by or why
        at = asyncio.get_running_loop().time() + in_s
        if self.limit is None:
            return  # the engine's part, once it begins, ends at once
        try:
            self.limit.reschedule(min(at, self.limit.when() or at))
        except RuntimeError:
            return  # it is over already

    def time_left(self) -> asyncio.Timeout:
        """The engines' time, of which another engine has what the first one left."""
        now = time.perf_counter()
        self.asked_at = self.asked_at or now
        left = self.asked_at + self.limit_s - now
        self.limit = asyncio.timeout(0 if self.ended_by else left)
        return self.limit

    def release(self) -> None:
        """Let go of the reply: what points back at its call would live until a full collection."""
        if self.line is not None:
            self.line.stop()
        self.line = self.relay = None

    def timing(self) -> Timing:
        """How long it took, as the log has it."""
        ttft_ms = None if self.ttft_ms is None else round(self.ttft_ms, 3)
        return Timing(
            started_at=round(self.started_at, 3), ttft_ms=ttft_ms, total_ms=round(self.ms(), 3)
        )

    @property
    def operation(self) -> str:
        """What the GenAI conventions call it."""
        return OPERATIONS.get(self.request.dialect.name, "chat")

    def ms(self) -> float:
        """Milliseconds since it began."""
        return (time.perf_counter() - self.begun) * 1000


def failure(raised: Exception, call: ModelCall) -> ProxyError:
    """The error between proxy and engine, for the agent."""
    if not isinstance(raised, TimeoutError):
        return raised if isinstance(raised, ProxyError) else EngineError(str(raised))
    if call.ended_by == SEALED:
        return EpisodeClosed("the episode was sealed while this call was in flight")
    return EngineSlow("the engine gave no answer within the call's deadline")


def why(error: ProxyError, call: ModelCall) -> str:
    """The same for the turn, where our own reason for ending the call comes first."""
    return call.ended_by or f"{error.code}: {error}"[:500]


def repeated(client: web.Request) -> int:
    """How often the client has repeated this request, as it says itself."""
    count = client.headers.get(RETRY_COUNT, "")
    return min(int(count), 1000) if count.isascii() and count.isdigit() and len(count) < 10 else 0


async def body_of(client: web.Request) -> bytes:
    """A request's body, unpacked. Raises BadRequest or BodyTooLarge."""
    try:
        return await client.read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge("the request's body is beyond the limit") from None
    except web.HTTPException as error:
        raise BadRequest(error.reason) from None
    except web.RequestPayloadError:
        raise BadRequest("the request's body is not what its headers say") from None
