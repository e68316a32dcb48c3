"""One model call: to the engine, into the log, and only then its end to the agent."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from odradek.infra import telemetry, trust
from odradek.infra.crash import crash_point
from odradek.proxy import answers, capture, retries
from odradek.proxy.access import Permit
from odradek.proxy.asking import Asking
from odradek.proxy.call import Call, body_of, parent, told, why
from odradek.proxy.continuation import Bridging
from odradek.proxy.counts import Counts
from odradek.proxy.dialects.dialect import Dialect, Terms
from odradek.proxy.errors import (
    BudgetSpent,
    EngineError,
    EngineSlow,
    LogRefused,
    ProxyError,
    StreamGarbled,
    TooManyStreams,
    TurnTooLarge,
)
from odradek.proxy.pool import Pool
from odradek.proxy.recorder import Draft, Recorder
from odradek.proxy.relay import Relay
from odradek.proxy.retries import Answer, Result
from odradek.proxy.settings import ProxySettings
from odradek.proxy.stories import Stories
from odradek.schemas.events import Opened, Outcome, Sealed

log = logging.getLogger("odradek.proxy")
UNDER_WAY: Final = 256
"""Replies on their way into the log at once. Where thousands of agents wait for one engine, their
replies come together: were all of them read in one go, no acknowledgement would be, and the log's
time-outs would pass although it takes turns."""
AGAIN_S: Final = 0.1


class Calls:
    """Serves model calls."""

    def __init__(
        self,
        settings: ProxySettings,
        engine: Pool,
        recorder: Recorder,
        stories: Stories,
        clock: Callable[[], float],
    ) -> None:
        self.lost = 0
        """Turns served although the log did not take them."""
        self.failed: Counter[str] = Counter()
        """Calls that no engine answered well, by the error's code."""
        self._settings = settings
        self._limits = settings.limits()
        self._asking = Asking(engine, settings.training())
        self._counts = Counts(
            engine, deadline_s=settings.call_s, at_once=settings.calls_per_episode
        )
        self._places = asyncio.Semaphore(UNDER_WAY)
        self._recorder = recorder
        self._stories = stories
        self._clock = clock
        self._bridging = Bridging(engine) if settings.continuation == "bridge" else None

    async def complete(
        self, client: web.Request, permit: Permit, dialect: Dialect
    ) -> web.StreamResponse:
        """Answer a model call. Raises ProxyError."""
        if self._settings.durability == "required":
            await self._recorder.admit(self._stories.get(permit.episode_id))
        ask = dialect.ask(await body_of(client), self._terms(permit))
        story = self._stories.of(permit.episode_id, until=self._clock() + permit.lasts_s)
        call = Call(client, ask, story, permit)
        story.enter(call, self._settings.calls_per_episode)
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
            story.leave(call, self._clock())
            if permit.unattributed:
                self._stories.drop(story)

    def _afford(self, call: Call) -> None:
        """Hold a call against what its episode may use, by the settings and by its token."""
        story, permit, known = call.story, call.permit, self._settings
        calls = self._max_calls(permit)
        tokens = min(known.max_episode_tokens, permit.max_tokens or known.max_episode_tokens)
        if story.asked >= calls:
            raise BudgetSpent(f"the episode has made its {calls} calls")
        if story.tokens >= tokens:
            raise BudgetSpent(f"the episode has used its {tokens} tokens")
        if call.ask.stream:
            same = (one for one in story.calls if one.ask.stream and one is not call)
            others = sum(one.permit.holder == permit.holder for one in same)
            if others >= known.streams_per_token:
                raise TooManyStreams(f"the token has {others} streams open already")
        story.asked += 1

    def _max_calls(self, permit: Permit) -> int:
        most = self._settings.max_episode_calls
        return min(most, permit.max_calls or most)

    def _terms(self, permit: Permit) -> Terms:
        return Terms(
            sampling=permit.sampling,
            training=self._asking.training,
            model=permit.model,
            limits=self._limits,
            memory=self._stories.memory(permit.episode_id),
            hosted=self._settings.hosted_tools,
        )

    async def count(self, client: web.Request, permit: Permit, dialect: Dialect) -> int:
        """How many tokens a request's prompt has. Raises ProxyError."""
        ask = dialect.ask(await body_of(client), self._terms(permit))
        story = self._stories.of(permit.episode_id, until=self._clock() + permit.lasts_s)
        try:
            return await self._counts.count(story, ask, self._max_calls(permit))
        finally:
            if permit.unattributed:
                self._stories.drop(story)

    async def _serve(self, call: Call) -> web.StreamResponse:
        if call.retries and (result := await self._again(call)) is not None:
            return await self._release(call, result)
        self._afford(call)
        call.story.begin(call.ask.digest)
        call.supersedes = retries.superseded(call.story, call.ask.digest)
        if call.permit.unattributed:
            await self._open(call)
        if self._bridging is not None:
            await self._bridging.prepare(call)
        return await (self._stream(call) if call.ask.stream else self._whole(call))

    async def _again(self, call: Call) -> Result | None:
        """The reply that a retry's client did not wait for, if there is one."""
        story = call.story
        for other in story.calls:
            same = other is not call and other.ask.digest == call.ask.digest
            if same and other.gone and not other.follows:
                return await self._redeem(call, await other.join(call))
        result = retries.take(story, call.ask.digest)
        return None if result is None else await self._redeem(call, result)

    async def _redeem(self, call: Call, result: Result) -> Result:
        """Make sure that the log has this reply as one that was released."""
        story = call.story
        try:
            for draft in result.drafts:
                if not draft.cut and draft.turn_id:
                    await self._recorder.ensure(story, draft)
                    continue
                # The log has this reply as cut, or not at all. Now that it is released it is
                # written again, and the cut one stays as superseded.
                draft.supersedes, draft.turn_id = draft.turn_id or draft.supersedes, ""
                draft.cut, draft.retries = False, call.retries
                await self._recorder.turn(story, draft)
            answers.remember(story, result)
        except LogRefused:
            retries.keep(story, result)
            raise
        return result

    async def _whole(self, call: Call) -> web.StreamResponse:
        status, headers, body = 0, answers.JSON, b""
        try:
            async with self._limited(call), await self._asking.ask(call) as upstream:
                status, headers = upstream.status, answers.headers(upstream.headers, call.ask)
                body = await upstream.read()
        except (EngineError, TimeoutError) as raised:
            return await self._failed(call, raised, status)
        return await self._answered(call, status, headers, body)

    async def _stream(self, call: Call) -> web.StreamResponse:
        relay = Relay(call)
        status = 0
        try:
            async with self._limited(call), await self._asking.ask(call) as upstream:
                status = upstream.status
                relay.headers = answers.headers(upstream.headers, call.ask)
                if not upstream.streams:
                    body: bytes | None = await upstream.read()
                else:
                    body = None
                    while chunk := await upstream.more():
                        await relay.feed(chunk)
                    await relay.feed(b"\n\n" if relay.parser.rest else b"")
        except (EngineError, StreamGarbled, TimeoutError) as raised:
            if not relay.begun:
                return await self._failed(call, raised, status)
            body = None
            relay.broke(self._told(call, raised))
        if body is not None:  # an error, as a rule
            return await self._answered(call, status, relay.headers, body)
        relay.finish()
        answer = Answer(
            status=status, headers=relay.headers, chunks=tuple(relay.pieces), streamed=True
        )
        result = Result(drafts=self._drafts(call, relay.captured(), status), answer=answer)
        try:
            async with self._places:
                await self._record(call, result, patient=relay.begun)
        except (LogRefused, TurnTooLarge) as refused:
            if not relay.begun:
                raise
            call.fail(refused)
            return await relay.end(relay.fail(refused))
        if call.joined or not relay.begun:
            return await self._release(call, result)
        # The turn is acknowledged: the end may go out. If we die between these two lines, the
        # agent has seen no finish reason and repeats the call, with another writer.
        response = await relay.end(b"".join(relay.held))
        if call.joined or call.gone:
            await self._release(call, result)
        return response

    async def _answered(
        self, call: Call, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        """The engine answered in one piece."""
        async with self._places:
            return await self._taken(call, status, headers, body)

    async def _taken(
        self, call: Call, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        captured, answer = answers.taken(status, headers, body, call.ask)
        result = Result(drafts=self._drafts(call, captured, status), answer=answer)
        await self._record(call, result)
        return await self._release(call, result)

    async def _failed(self, call: Call, raised: Exception, status: int) -> web.StreamResponse:
        """The engine gave no answer: a turn with the error, and an error for the agent."""
        error = self._told(call, raised)
        captured = [capture.Captured(error=why(error, call))]
        answer = answers.error_answer(error, call.ask.dialect)
        result = Result(drafts=self._drafts(call, captured, status), answer=answer)
        async with self._places:
            await self._record(call, result)
        return await self._release(call, result)

    def _told(self, call: Call, raised: Exception) -> ProxyError:
        """What went wrong at the engine, counted."""
        error = told(raised, call)
        self.failed[error.code] += 1
        trust.moved(trust.FAILED, code=error.code)
        return error

    def _limited(self, call: Call) -> asyncio.Timeout:
        call.limit = asyncio.timeout(0 if call.ended_by else self._limit_s(call))
        return call.limit

    def _limit_s(self, call: Call) -> float:
        return min(call.permit.call_s or self._settings.call_s, self._settings.call_s)

    def _drafts(
        self, call: Call, captured: list[capture.Captured], status: int
    ) -> tuple[Draft, ...]:
        """A turn for each choice of the reply."""
        sent = call.sent
        if sent is not None:
            sent.heard(one.versions for one in captured)
        timing = call.timing()
        cut = call.gone
        return tuple(
            Draft(
                ask=call.ask.of(one.choice),
                captured=one,
                status=status,
                agent=call.permit.agent,
                timing=timing,
                retries=call.retries,
                cut=cut,
                supersedes=call.supersedes[place] if place < len(call.supersedes) else "",
                inferred=sent.inferred if sent else None,
                salt=sent.salt if sent else None,
                traceparent=call.traceparent,
                standing=call.standing,
            )
            for place, one in enumerate(captured)
        )

    async def _record(self, call: Call, result: Result, *, patient: bool = False) -> None:
        """The commit: when this returns, the agent may see the end of its reply."""
        for draft in result.drafts:
            await self._durable(call, result, self._write(call, draft, patient=patient))
        if call.permit.unattributed:
            await self._durable(call, result, self._close(call, result))
        answers.remember(call.story, result)
        if result.error:
            call.story.begun[call.ask.digest] -= 1
        for draft in result.drafts:
            used = draft.captured.usage
            call.story.tokens += used.prompt_tokens + used.completion_tokens

    async def _durable(self, call: Call, result: Result, write: Awaitable[object]) -> None:
        story = call.story
        try:
            await write
        except (LogRefused, TurnTooLarge) as error:
            if self._settings.durability == "required":
                if isinstance(error, LogRefused):
                    retries.keep(story, result)
                raise
            # Served all the same: the number is used up, so readers see a gap, and the seal says
            # that the episode is incomplete.
            story.unsure.clear()
            story.lost += 1
            self.lost += 1
            trust.moved(trust.CAPTURE_GAPS, where="proxy")
            log.warning("a turn of episode %s is not in the log", story.episode_id)

    async def _write(self, call: Call, draft: Draft, *, patient: bool) -> None:
        """Write the turn; patiently, that is as long as the call may last.

        An agent whose stream has begun cannot be told to come again: SDKs repeat a refused request,
        and give up on an error within a stream.
        """
        patient = patient and self._settings.durability == "required"
        ends = 1000 * self._limit_s(call)
        while True:
            try:
                return await self._recorder.ensure(call.story, draft)
            except LogRefused:
                if not patient or call.gone or call.ended_by or call.ms() >= ends:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _release(self, call: Call, result: Result) -> web.StreamResponse:
        """Hand the reply to the client, to its retry, or keep it for one."""
        if call.joined:
            call.resolve(result)
            return web.Response(status=499)
        if call.gone:
            retries.keep(call.story, result)
            return web.Response(status=499)
        answer = result.answer
        return web.Response(
            status=answer.status, headers=answer.headers, body=b"".join(answer.chunks)
        )

    async def _open(self, call: Call) -> None:
        name = call.story.episode_id
        await self._recorder.opened(
            Opened(
                episode_id=name,
                task_id=name,
                agent=call.permit.agent or "unattributed",
                sample=0,
                group_size=1,
                unattributed=True,
            )
        )

    async def _close(self, call: Call, result: Result) -> None:
        outcome = Outcome.UPSTREAM_FAILED if result.error else Outcome.COMPLETED
        sealed = Sealed(
            episode_id=call.story.episode_id, writer=self._recorder.writer, outcome=outcome
        )
        await self._recorder.sealed(call.story, sealed)
