"""One model call: to the engine, into the log, and only then its end to the agent."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web
from msgspec import Struct

from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.crash_points import crash_point
from odradek.proxy.auth import Permit
from odradek.proxy.calls import agent_replies, retries
from odradek.proxy.calls.budget import Budget
from odradek.proxy.calls.call import ModelCall, body_of, parent, told, why
from odradek.proxy.calls.commit import Commit, unseen
from odradek.proxy.calls.engine_request import EngineAnswer, EngineRequester
from odradek.proxy.calls.keepalive import SILENCE_S, AgentStream, always
from odradek.proxy.calls.render import PromptBuilder
from odradek.proxy.calls.side_calls import SideCalls
from odradek.proxy.calls.stream import StreamRelay
from odradek.proxy.calls.token_count import TokenCounter
from odradek.proxy.dialects import cache_salt
from odradek.proxy.dialects.dialect import Dialect, ParsedRequest, RequestRules
from odradek.proxy.dialects.model_routes import routes
from odradek.proxy.engines.pool import Pool
from odradek.proxy.episodes.draft import AgentReply, RecordedReply, TurnDraft
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.errors import (
    EngineError,
    EngineSlow,
    LogRefused,
    ProxyError,
    TurnTooLarge,
    answered,
)
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.settings import ProxySettings
from odradek.proxy.wire import reply

UNDER_WAY: Final = 256
"""Replies on their way into the log at once. Where thousands of agents wait for one engine, their
replies come together: were all of them read in one go, no acknowledgement would be, and the log's
time-outs would pass although it takes turns."""


class EngineRoutes(Struct):
    """Engines that calls go to, and who asks them."""

    requester: EngineRequester
    counts: TokenCounter


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
        self.silence_s = SILENCE_S
        """After how long without a byte the agent of a stream gets a sign of life."""
        self.failed: Counter[str] = Counter()
        """Calls that no engine answered well, by the error's code."""
        self.aside = SideCalls(
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
        self._places = asyncio.Semaphore(UNDER_WAY)
        self._turn_writer = turn_writer
        self._commit = Commit(turn_writer, required=settings.durability == "required")
        self._episodes = episodes
        self._clock = clock
        self._budget = Budget()
        self._bridging = PromptBuilder(engine) if settings.continuation == "bridge" else None

    def _engines(self, pool: Pool, *, salted: bool = True) -> "EngineRoutes":
        known = self._settings
        counts = TokenCounter(pool, deadline_s=known.call_s, at_once=known.calls_per_episode)
        return EngineRoutes(EngineRequester(pool, known.training(), salted=salted), counts)

    @property
    def lost(self) -> int:
        """Turns served although the log did not take them."""
        return self._commit.lost

    async def complete(
        self, client: web.Request, permit: Permit, dialect: Dialect
    ) -> web.StreamResponse:
        """Answer a model call. Raises ProxyError."""
        if self._settings.durability == "required":
            await self._turn_writer.admit(self._episodes.get(permit.episode_id))
        request = dialect.parse(await body_of(client), self._terms(permit))
        episode = self._episodes.of(permit.episode_id, until=self._clock() + permit.lasts_s)
        call = ModelCall(client, request, episode, permit)
        episode.enter(call, self._settings.calls_per_episode)
        try:
            with telemetry.span(
                "proxy.turn",
                parent=parent(client, permit),
                episode_id=permit.episode_id,
            ) as call.traceparent:
                return await self._serve(call)
        except BaseException as error:  # cancelled as well: a retry may wait for this reply
            call.fail(error)
            raise
        finally:
            # For a retry that joined when its reply had gone: it is to ask again.
            call.fail(EngineSlow("the call was over"))
            # A reply in one piece is written after we return: die when it is under way.
            crash_point("turn_released", in_s=0.001)
            episode.leave(call, self._clock())
            if permit.unattributed:
                self._episodes.drop(episode)

    def _terms(self, permit: Permit) -> RequestRules:
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

    async def count(self, client: web.Request, permit: Permit, dialect: Dialect) -> int:
        """How many tokens a request's prompt has. Raises ProxyError."""
        request = dialect.parse(await body_of(client), self._terms(permit))
        episode = self._episodes.of(permit.episode_id, until=self._clock() + permit.lasts_s)
        try:
            return await self._of(request).counts.count(
                episode, request, self._budget.calls(permit)
            )
        finally:
            if permit.unattributed:
                self._episodes.drop(episode)

    async def _serve(self, call: ModelCall) -> web.StreamResponse:
        if not call.request.stream:
            return await self._served(call)
        line = call.line = AgentStream(call, silence_s=self.silence_s)
        line.headers = agent_replies.headers(line.headers, call.request)
        line.watch(line.overdue)
        try:
            return await self._served(call)
        except ProxyError as error:
            if not line.begun:
                raise
            call.fail(error)
            return await line.end(call.request.dialect.stream(call.request).fail(error))
        finally:
            line.stop()

    async def _served(self, call: ModelCall) -> web.StreamResponse:
        if call.retries and (result := await self._again(call)) is not None:
            return await self._release(call, result)
        self._budget.afford(call)
        call.episode.begin(call.request.digest)
        call.supersedes = retries.superseded(call.episode, call.request.digest)
        if call.permit.unattributed:
            await self._commit.open(call)
        self.aside.saw(call)
        if self._bridging is not None and self._of(call.request) is self._own:
            await self._bridging.prepare(call)
        return await (self._whole(call) if call.line is None else self._stream(call, call.line))

    async def _again(self, call: ModelCall) -> RecordedReply | None:
        """The reply that a retry's client did not wait for, if there is one."""
        episode = call.episode
        for other in episode.calls:
            same = other is not call and other.request.digest == call.request.digest
            if same and other.gone and not other.follows:
                if call.line is not None:
                    call.line.watch(always)
                return await self._redeem(call, await other.join(call))
        result = retries.take(episode, call.request.digest)
        return None if result is None else await self._redeem(call, result)

    async def _redeem(self, call: ModelCall, result: RecordedReply) -> RecordedReply:
        """Make sure that the log has this reply as one that was released."""
        episode = call.episode
        try:
            for draft in result.drafts:
                if not draft.disconnected and draft.turn_id:
                    await self._turn_writer.ensure(episode, draft)
                    continue
                # The log has this reply as cut, or not at all. Now that it is released it is
                # written again, and the cut one stays as superseded.
                draft.supersedes, draft.turn_id = draft.turn_id or draft.supersedes, ""
                draft.disconnected, draft.retries = False, call.retries
                await self._turn_writer.turn(episode, draft)
            agent_replies.remember(episode, result)
        except LogRefused:
            retries.keep(episode, result)
            raise
        return result

    async def _whole(self, call: ModelCall) -> web.StreamResponse:
        while True:
            heard = await self._hear(call)
            if self._of(call.request).requester.again(call, heard.fault):
                continue
            if heard.raised is not None:
                return await self._failed(call, self._told(call, heard.raised), heard.status)
            async with self._places:
                captured, answer = agent_replies.taken(heard, call.request)
                if captured[0].error and heard.good:
                    error = EngineError(captured[0].error)
                    if self._of(call.request).requester.again(call, error):
                        continue
                    self._told(call, error)
                return await self._answered(call, heard.status, captured, answer)

    async def _stream(self, call: ModelCall, line: AgentStream) -> web.StreamResponse:
        line.watch(call.had)
        while True:
            relay = StreamRelay(call, line)
            heard = await self._hear(call, relay)
            raised = heard.raised or (
                EngineError(cache_salt.unsaid(relay.error)) if relay.error else None
            )
            # Signs of life are no part of a reply, so another engine may still give it.
            if relay.begun or not self._of(call.request).requester.again(
                call, raised or heard.fault
            ):
                break
        line.watch(always)
        if raised is None and not heard.good:
            async with self._places:
                captured, answer = agent_replies.taken(heard, call.request)
                return await self._answered(call, heard.status, captured, answer)
        error = None if raised is None else self._told(call, raised)
        if error is not None and not relay.error:
            relay.broke(error)
        if error is not None and not line.begun:
            answer = agent_replies.error_answer(error, call.request.dialect)
        else:
            answer = relay.answer(heard.status)
        result = RecordedReply(
            drafts=self._drafts(call, relay.captured(), heard.status), answer=answer
        )
        try:
            async with self._places:
                await self._record(call, result)
        except (LogRefused, TurnTooLarge) as refused:
            if not line.begun:
                raise
            call.fail(refused)
            return await line.end(relay.fail(refused))
        if call.joined or not line.begun:
            return await self._release(call, result)
        # The turn is acknowledged: the end may go out. If we die between these two lines, the
        # agent has seen no finish reason and repeats the call, with another writer.
        response = await line.end(relay.rest)
        if call.joined or call.gone:
            await self._release(call, result)
        return response

    async def _hear(self, call: ModelCall, relay: StreamRelay | None = None) -> EngineAnswer:
        """What an engine answers; a stream, or what is to be one, goes through the relay."""
        heard = EngineAnswer()
        try:
            async with (
                self._limited(call),
                await self._of(call.request).requester.send(call) as upstream,
            ):
                heard.status = upstream.status
                heard.headers = agent_replies.headers(upstream.headers, call.request)
                if relay is not None and heard.good:
                    await relay.take(upstream, heard.headers)
                else:
                    heard.body = await upstream.read()
        except (EngineError, TimeoutError) as raised:
            heard.raised = raised
        return heard

    async def _answered(
        self, call: ModelCall, status: int, captured: list[reply.CapturedReply], answer: AgentReply
    ) -> web.StreamResponse:
        """The engine answered in one piece."""
        result = RecordedReply(drafts=self._drafts(call, captured, status), answer=answer)
        await self._record(call, result)
        return await self._release(call, result)

    async def _failed(self, call: ModelCall, error: ProxyError, status: int) -> web.StreamResponse:
        """The engine gave no answer: a turn with the error, and an error for the agent."""
        captured = [reply.CapturedReply(error=why(error, call))]
        async with self._places:
            answer = agent_replies.error_answer(error, call.request.dialect)
            return await self._answered(call, status, captured, answer)

    async def _record(self, call: ModelCall, result: RecordedReply) -> None:
        begun = call.line.has_begun if call.line is not None else unseen
        await self._commit.record(call, result, limit_s=self._limit_s(call), begun=begun)

    def _told(self, call: ModelCall, raised: Exception) -> ProxyError:
        """What went wrong at the engine, counted."""
        error = told(raised, call)
        self.failed[error.code] += 1
        metrics.moved(metrics.FAILED, code=error.code)
        return error

    def _of(self, request: ParsedRequest) -> "EngineRoutes":
        """The engines that its model's name stands for."""
        route = request.route
        return self._others[route] if route is not None and route.engine else self._own

    def _limited(self, call: ModelCall) -> asyncio.Timeout:
        """The engines' time, of which another engine has what the first one left."""
        now = time.perf_counter()
        call.asked_at = call.asked_at or now
        left = call.asked_at + self._limit_s(call) - now
        call.limit = asyncio.timeout(0 if call.ended_by else left)
        return call.limit

    def _limit_s(self, call: ModelCall) -> float:
        return min(call.permit.call_s or self._settings.call_s, self._settings.call_s)

    def _drafts(
        self, call: ModelCall, captured: list[reply.CapturedReply], status: int
    ) -> tuple[TurnDraft, ...]:
        """A turn for each choice of the reply."""
        aside, without_tools = self.aside.why(call), self.aside.without_tools(call)
        sent = call.sent
        if sent is not None:
            sent.heard(one.versions for one in captured)
        for one in captured:
            one.untrainable = one.untrainable or call.doubt
        timing = call.timing()
        cut = call.gone
        return tuple(
            TurnDraft(
                request=call.request.of(one.choice),
                captured=one,
                status=status,
                agent=call.permit.agent,
                timing=timing,
                retries=call.retries,
                disconnected=cut,
                supersedes=call.supersedes[place] if place < len(call.supersedes) else "",
                aside=aside,
                without_tools=without_tools,
                inferred=sent.inferred if sent else None,
                salt=sent.salt if sent else None,
                traceparent=call.traceparent,
                standing=call.standing,
            )
            for place, one in enumerate(captured)
        )

    async def _release(self, call: ModelCall, result: RecordedReply) -> web.StreamResponse:
        """Hand the reply to the client, to its retry, or keep it for one."""
        if call.joined:
            call.resolve(result)
            return web.Response(status=499)
        if call.gone:
            retries.keep(call.episode, result)
            return web.Response(status=499)
        answer, line = result.answer, call.line
        told = b"".join(answer.chunks)
        if line is None or not line.begun:
            return web.Response(status=answer.status, headers=answer.headers, body=told)
        if not answer.streamed:  # an error, for which it is too late to have a status
            told = call.request.dialect.stream(call.request).fail(
                answered(answer.status, cache_salt.unsaid(result.error))
            )
        return await line.end(told)
