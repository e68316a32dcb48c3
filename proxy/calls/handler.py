"""One model call: to the engine, into the log, and only then its end to the agent."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

from aiohttp import web
from msgspec import Struct

from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.crash_points import crash_point
from odradek.proxy.auth import Permit
from odradek.proxy.calls import agent_replies, retries
from odradek.proxy.calls.call import ModelCall, body_of
from odradek.proxy.calls.capture import ReplyCapture
from odradek.proxy.calls.commit import Commit
from odradek.proxy.calls.engine_request import EngineRequester
from odradek.proxy.calls.keepalive import SILENCE_S, AgentStream
from odradek.proxy.calls.render import PromptBuilder
from odradek.proxy.calls.side_calls import SideCalls
from odradek.proxy.calls.token_count import TokenCounter
from odradek.proxy.dialects.dialect import Dialect, ParsedRequest, RequestRules
from odradek.proxy.dialects.model_routes import routes
from odradek.proxy.engines.pool import Pool
from odradek.proxy.episodes.budget import afford, call_limit
from odradek.proxy.episodes.draft import RecordedReply
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.errors import EngineSlow, ProxyError
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.settings import ProxySettings

UNDER_WAY: Final = 256
"""Replies on their way into the log at once. Where thousands of agents wait for one engine, their
replies come together: were all of them read in one go, no acknowledgement would be, and the log's
time-outs would pass although it takes turns."""


class EngineRoutes(Struct):
    """Engines that calls go to, and who asks them."""

    requester: EngineRequester
    counter: TokenCounter


class CallHandler:
    """Serves model calls."""

    def __init__(
        self,
        settings: ProxySettings,
        engine: Pool,
        turn_writer: TurnWriter,
        episodes: EpisodeRegistry,
        clock: Callable[[], float],
        others: Mapping[str, Pool],
    ) -> None:
        self.active = 0
        """Calls under way."""
        metrics.gauge(metrics.CALLS_ACTIVE, lambda: [(self.active, ())])
        self.silence_s = SILENCE_S
        """After how long without a byte the agent of a stream gets a sign of life."""
        self.side_calls = SideCalls(
            header=settings.side_call_header, without_tools=settings.side_calls_without_tools
        )
        self._settings = settings
        self._limits = settings.limits()
        self._own = self._engines(engine)
        self._routes = routes(settings.models, settings.policy)
        self._others = {
            route: self._engines(others[name], salted=False)
            for name, route in self._routes.items()
            if route.engine
        }
        """The engines of names that are mapped to others than the policy's own."""
        self._slots = asyncio.Semaphore(UNDER_WAY)
        self._capture = ReplyCapture(self.side_calls)
        self._commit = Commit(turn_writer, required=settings.durability == "required")
        self._episodes = episodes
        self._clock = clock
        self._prompts = PromptBuilder(engine) if settings.continuation == "bridge" else None

    def _engines(self, pool: Pool, *, salted: bool = True) -> EngineRoutes:
        settings = self._settings
        counter = TokenCounter(pool, deadline_s=settings.call_s, at_once=settings.calls_per_episode)
        return EngineRoutes(EngineRequester(pool, settings.training(), salted=salted), counter)

    @property
    def lost(self) -> int:
        """Turns served although the log did not take them."""
        return self._commit.lost

    @property
    def failed(self) -> Counter[str]:
        """Calls that no engine answered well, by the error's code."""
        return self._capture.failed

    async def complete(
        self, client: web.Request, permit: Permit, dialect: Dialect
    ) -> web.StreamResponse:
        """Answer a model call. Raises ProxyError."""
        await self._commit.admit(self._episodes.get(permit.episode_id))
        request = dialect.parse(await body_of(client), self._rules(permit))
        with (
            self._enter(client, request, permit) as call,
            telemetry.span(
                "proxy.turn", parent=call.parent, episode_id=permit.episode_id
            ) as call.traceparent,
        ):
            try:
                reply = await self._earlier(call) if call.retries else None
                if reply is None:
                    await self._begin(call)
                requester = self._engines_of(request).requester
                while reply is None:
                    answer = await requester.ask(call)
                    async with self._slots:
                        reply = self._capture.reply(call, answer, requester)
                        if reply is not None:  # else another engine may give one
                            await self._commit.record(call, reply)
                return await agent_replies.release(call, reply)
            except ProxyError as error:
                call.error_code = error.code
                return await agent_replies.break_off(call, error)

    def _rules(self, permit: Permit) -> RequestRules:
        """On which terms a request of this permit is taken."""
        return RequestRules(
            sampling=permit.sampling,
            training=self._own.requester.training,
            trainings={route: of.requester.training for route, of in self._others.items()},
            model=permit.model,
            limits=self._limits,
            memory=self._episodes.memory(permit.episode_id),
            hosted=self._settings.hosted_tools,
            routes=self._routes,
        )

    def _enter(self, client: web.Request, request: ParsedRequest, permit: Permit) -> "EnteredCall":
        """Make the call one of its episode's. Raises EpisodeClosed."""
        episode = self._episodes.of(permit.episode_id, until=self._clock() + permit.lasts_s)
        call = ModelCall(client, request, episode, permit, call_s=self._settings.call_s)
        return EnteredCall(call, self)

    async def _earlier(self, call: ModelCall) -> RecordedReply | None:
        """The reply that a retry's client did not wait for, if there is one, safe in the log."""
        reply = await retries.waiting_reply(call)
        if reply is not None:
            await self._commit.redeem(call, reply)
        return reply

    async def _begin(self, call: ModelCall) -> None:
        """Take up a call that is to be sampled.

        Raises BudgetSpent, TooManyStreams or LogRefused.
        """
        afford(call, call.episode)
        call.episode.begin(call.request.digest)
        call.supersedes = retries.superseded(call.episode, call.request.digest)
        if call.permit.unattributed:
            await self._commit.open(call)
        self.side_calls.saw(call)
        if self._prompts is not None and self._engines_of(call.request) is self._own:
            await self._prompts.prepare(call)

    def _engines_of(self, request: ParsedRequest) -> EngineRoutes:
        """The engines that its model's name stands for."""
        route = request.route
        return self._others[route] if route is not None and route.engine else self._own

    def enter(self, call: ModelCall) -> None:
        """Count a call in. Raises EpisodeClosed or TooManyCalls."""
        call.episode.enter(call, self._settings.calls_per_episode)
        self.active += 1
        if call.request.stream:
            line = call.line = AgentStream(call, silence_s=self.silence_s)
            line.headers = agent_replies.headers(line.headers, call.request)
            line.watch(line.overdue)

    def leave(self, call: ModelCall) -> None:
        """Count a call out, however it ended."""
        self.active -= 1
        call.release()
        call.episode.leave(call, self._clock())
        if call.permit.unattributed:
            self._episodes.drop(call.episode)

    async def count(self, client: web.Request, permit: Permit, dialect: Dialect) -> int:
        """How many tokens a request's prompt has. Raises ProxyError."""
        request = dialect.parse(await body_of(client), self._rules(permit))
        episode = self._episodes.of(permit.episode_id, until=self._clock() + permit.lasts_s)
        counter = self._engines_of(request).counter
        try:
            return await counter.count(episode, request, call_limit(permit))
        finally:
            if permit.unattributed:
                self._episodes.drop(episode)


class EnteredCall:
    """A block in which a call is one of its episode's.

    A class and no generator: each call enters it.
    """

    __slots__ = ("_call", "_handler")

    def __init__(self, call: ModelCall, handler: CallHandler) -> None:
        self._call = call
        self._handler = handler

    def __enter__(self) -> ModelCall:
        """Count the call in. Raises EpisodeClosed or TooManyCalls."""
        self._handler.enter(self._call)
        return self._call

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Count it out; a retry that waits for its reply learns what became of it."""
        # A cancelled call as well. Without an error this is for a retry that joined when the reply
        # had gone: it is to ask again.
        if self._call.joined:
            self._call.fail(error or EngineSlow("the call was over"))
        # A reply in one piece is written after we return: die when it is under way.
        crash_point("turn_released", in_s=0.001)
        self._handler.leave(self._call)
        _measure(self._call, "" if kind is None else kind.__name__)


def _measure(call: ModelCall, error: str) -> None:
    """How long it took, where metrics are exported."""
    error = call.error_code or error
    metrics.record(metrics.CALL_S, call.ms() / 1000, call.operation, error)
    if call.ttft_ms is not None and call.request.stream:
        metrics.record(metrics.FIRST_CHUNK_S, call.ttft_ms / 1000, call.operation)
