"""Attempts at messages, from their first record to their last."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import msgspec
from a2a.server.request_handlers import RequestHandler
from a2a.types import (
    CancelTaskRequest,
    Message,
    SendMessageRequest,
    Task,
    TaskState,
    TaskStatus,
)
from a2a.utils.errors import (
    A2AError,
    InvalidAgentResponseError,
    TaskNotCancelableError,
    UnsupportedOperationError,
)

from odradek.agents.attempt import events
from odradek.agents.attempt.attempt import Attempt, AttemptState
from odradek.agents.attempt.executor import late
from odradek.agents.attempt.slots import RunSlots
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import STREAM
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.binding.responses import INTERRUPTED
from odradek.agents.errors import NoAnswer, RequestRefused
from odradek.agents.host.answers import TaskAnswers
from odradek.agents.host.children import AgentLine, Children
from odradek.agents.host.replies import ReplySender
from odradek.agents.host.tasks.ids import TASK_ID
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.agents.host.tasks.queries import TaskQueries
from odradek.agents.push.operations import PushOperations
from odradek.agents.rollout import Rollout, RolloutTask
from odradek.agents.settings import AgentSettings
from odradek.agents.trust.principal import on_behalf
from odradek.infra.errors import BusError
from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.episode_tokens import mint
from odradek.schemas import ids
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Outcome

LOOK_S: Final = 0.1
"""How often a run is looked at whose agent is slow to end."""


class AttemptRunner:
    """Plays attempts, as many at once as there are slots.

    Args:
        settings: The host's.
        handler: The SDK's request handler, over the EpisodeExecutor.
        runs: Opened runs by task id, shared with the executor.
        snapshots: The SDK's store.
        queries: Says where the stream of a task begins.
        replies: Answers.
        push: Keeps push notification configs.
        line: On which agents ask others.
        keys: Sign the agents' tokens.
        source: Of the events, for CloudEvents.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        handler: RequestHandler,
        runs: dict[str, Attempt],
        snapshots: HostTaskStore,
        queries: TaskQueries,
        replies: ReplySender,
        push: PushOperations,
        line: AgentLine,
        keys: list[str],
        source: str,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._runs = runs
        self._snapshots = snapshots
        self._queries = queries
        self._replies = replies
        self._push = push
        self._line = line
        self._keys = keys
        self._source = source
        self._places = RunSlots(settings.concurrency)

    def make(
        self,
        owned: RequestPartition,
        offset: int,
        called: RequestHeaders,
        send: Send,
        sample: SampleAddress,
        attempt: int,
        max_attempts: int,
    ) -> Attempt:
        """One attempt at a request; its ids follow from the request."""
        return Attempt(
            send=send,
            called=called,
            sample=sample,
            partition=owned.number,
            offset=offset,
            episode_id=ids.episode_id(
                send.message_id, attempt, partition=owned.number, partitions=owned.count
            ),
            context_id=send.context_id or sample.task_id,
            attempt=attempt,
            max_attempts=max_attempts,
            writer=owned.writer,
        )

    async def answer_as_it_stands(
        self, owned: RequestPartition, called: RequestHeaders, task_id: str
    ) -> None:
        """Answer with a task as it is now: its client reads on in its events, or asks again."""
        head = await self._queries.head(owned, task_id, called.principal)
        await self._replies.answer(called, head if called.operation == STREAM else head.task)

    async def play(self, owned: RequestPartition, run: Attempt) -> None:
        """Play an attempt from its first record to its last. Raises RequestRefused, BusError."""
        owned.runs[run.episode_id] = run
        began = time.perf_counter()
        if not run.waits:
            owned.recovered(run.episode_id)
        if owned.lost:
            run.lose()
        try:
            async with AsyncExitStack() as place:
                if not run.waits:
                    await place.enter_async_context(self._places.slot(run))
                if run.lost:
                    return
                # Later attempts are promised by the EpisodeAborted before them, so they are made.
                if run.attempt == 1 and not run.adopted and run.called.expired(time.time()):
                    raise RequestRefused("expired", "nobody waits for the answer any more")
                with telemetry.span(
                    "agent.run", parent=run.called.traceparent, episode_id=run.episode_id
                ) as traceparent:
                    run.called = msgspec.structs.replace(run.called, traceparent=traceparent)
                    request = run.send.proto()
                    await self._open(owned, run, request)
                    run.opened.set()
                    if run.called.operation == STREAM or run.send.at_once:
                        run.answered = True
                        await self.answer_as_it_stands(owned, run.called, run.episode_id)
                    await self._run(owned, run, request, place)
        finally:
            owned.runs.pop(run.episode_id, None)
            self._measure(run, time.perf_counter() - began)
            run.opened.set()
            run.settled.set()
            run.closed.set()

    def _measure(self, run: Attempt, seconds: float) -> None:
        ending = run.verdict or run.stopped
        error = "lost" if ending is None else ending.outcome.value
        if error == Outcome.COMPLETED.value:
            error = ""
        metrics.record(metrics.ATTEMPT_S, seconds, self._settings.name, error)

    async def follow_up(self, run: Attempt, request: SendMessageRequest) -> Task:
        """Hand a message to an attempt that asks. Raises A2AError."""
        async with self._places.slot(run):
            if run.state not in {AttemptState.PLAYING, AttemptState.ASKING}:
                raise UnsupportedOperationError(f"task {run.episode_id} is over")
            return await self._deliver(run, request)

    async def _deliver(self, run: Attempt, request: SendMessageRequest) -> Task:
        """Have the SDK hand a message to the agent; the task once that asks or is done."""
        context = on_behalf(run.called.principal, **{TASK_ID: run.episode_id})
        try:
            task: Task = await self._handler.on_message_send(request, context)
        except InvalidAgentResponseError as error:
            # The SDK saved the task as failed and reads no further event of its agent.
            self._snapshots.unheard(run.episode_id)
            run.stop(Outcome.FAILED, str(error))
            await run.over.wait()
            await self._snapshots.conclude(run)
            raise
        await self._snapshots.logged(run.episode_id)
        return task

    async def _open(
        self, owned: RequestPartition, run: Attempt, request: SendMessageRequest
    ) -> None:
        run.go(AttemptState.OPENING)
        run.captured = self._settings.training
        run.sample = _bounded(run)
        run.asker = Children(self._line, self._settings, run, partitions=owned.count)
        run.rollout = self._rollout(run)
        if run.adopted:
            return
        message = Message()
        message.CopyFrom(request.message)
        message.task_id, message.context_id = run.episode_id, run.context_id
        status = TaskStatus(state=TaskState.TASK_STATE_WORKING)
        status.timestamp.GetCurrentTime()
        task = Task(id=run.episode_id, context_id=run.context_id, status=status, history=[message])
        snapshot, event = self._snapshots.open(run, task)
        try:
            opened = events.opened(run, self._settings.name, source=self._source)
        except InvalidRecord as error:
            self._snapshots.forget(run.episode_id)
            raise RequestRefused(error.reason, error.detail) from None
        # With the first event, so that no event is passed before it is known who wants it.
        pushed = self._push.begin(owned.push, run.push, run.episode_id, run.partition)
        records = (*pushed, snapshot, *((opened,) if self._settings.training else ()), event)
        # One transaction: whoever has lost the partition can open nothing. If we die above this
        # line, nothing has begun. Below it, the successor finds the snapshot and gives up.
        await run.writer.write(*records)
        crash_point("opened_before_run")

    async def _run(
        self,
        owned: RequestPartition,
        run: Attempt,
        request: SendMessageRequest,
        place: AsyncExitStack,
    ) -> None:
        self._runs[run.episode_id] = run
        request.message.context_id = run.context_id
        if run.adopted:
            request.message.task_id = run.episode_id
        try:
            # Its client's wish not to wait is served already; we wait for what the agent does.
            request.configuration.return_immediately = False
            task = await self._deliver(run, request)
            owned.recovered(run.episode_id)
            if task.status.state in INTERRUPTED and not run.answered:
                run.answered = True
                await self._replies.answer(run.called, task)
            answers = TaskAnswers(self._line, run)
            if run.asks and not answers.given:
                await place.aclose()  # as long as its agent asks, another one may play
            async with self._answering(run, answers, task):
                await self._until_over(run)
            if not run.lost:
                await self._snapshots.published(run.episode_id)
            crash_point("status_before_finish")
            if not run.lost:
                run.go(AttemptState.ENDED)
        finally:
            self._runs.pop(run.episode_id, None)
            run.task = self._snapshots.task(run.episode_id)
            held = self._snapshots.forget(run.episode_id)
            if held is not None and not run.lost:
                owned.memory.put(held.mark, held.value)

    @asynccontextmanager
    async def _answering(
        self, run: Attempt, answers: TaskAnswers, task: Task
    ) -> AsyncIterator[None]:
        """A block during which an agent's questions get the answers that its task gives."""
        if not answers.given:
            yield
            return
        work = asyncio.create_task(self._answer(run, answers, task))
        try:
            yield
        finally:
            work.cancel()
            await asyncio.wait({work})
            if not work.cancelled() and (error := work.exception()) is not None:
                raise error

    async def _answer(self, run: Attempt, answers: TaskAnswers, task: Task) -> None:
        """Answer each question; a run to which no answer comes is ended."""
        try:
            while task.status.state in INTERRUPTED and not run.called_off.is_set():
                task = await self._deliver(run, await answers.next(task))
        except NoAnswer as error:
            run.stop(error.outcome, str(error))
        except A2AError as error:
            run.stop(Outcome.FAILED, f"it could not be answered: {error}")
        except BusError as error:
            run.stop(Outcome.UPSTREAM_FAILED, f"it could not be answered: {error}")

    async def _until_over(self, run: Attempt) -> None:
        """Return once a run is over.

        An agent that plays ends its run itself. Where it asks for a message, nothing is under way,
        so its run is ended here once it is called off or its time is over.
        """
        if run.over.is_set():
            return
        loop = asyncio.get_running_loop()
        over = asyncio.create_task(run.over.wait())
        off = asyncio.create_task(run.called_off.wait())
        try:
            while not run.over.is_set():
                left = (run.ends_at or 0.0) - loop.time()
                await asyncio.wait(
                    {over} if off.done() else {over, off},
                    timeout=max(left, LOOK_S),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if run.asks and (off.done() or loop.time() >= (run.ends_at or 0.0)):
                    verdict = late(run)
                    run.stop(verdict.outcome, verdict.error)  # unless it is called off already
                    await self._cancel_asking(run)
        finally:
            over.cancel()
            off.cancel()

    async def _cancel_asking(self, run: Attempt) -> None:
        with suppress(TaskNotCancelableError):  # it is over, but not cancelled
            await self._handler.on_cancel_task(
                CancelTaskRequest(id=run.episode_id), on_behalf(run.called.principal)
            )

    def _rollout(self, run: Attempt) -> Rollout:
        sample = run.sample
        model = sample.model or self._settings.policy
        key = mint(events.claims(run, self._settings, model), self._keys) if self._keys else ""
        return Rollout(
            task=RolloutTask(
                task_id=sample.task_id,
                agent=self._settings.name,
                input=run.send.input_value,
                item=sample.item,
                purpose=sample.purpose,
                group_size=sample.group_size,
                rewards=sample.rewards,
                sampling=sample.sampling,
            ),
            base_url=f"{self._settings.proxy_url.rstrip('/')}/e/{run.episode_id}/v1",
            api_key=key,
            model=model,
            episode_id=run.episode_id,
            sample=sample.sample,
            attempt=run.attempt,
            timeout_s=sample.timeouts.attempt_s,
            traceparent=run.called.traceparent,
            asker=run.asker,
        )


def _bounded(run: Attempt) -> SampleAddress:
    """Where a run belongs; a child has no longer than until its parent's deadline."""
    sample = run.sample
    if not sample.parent or run.called.deadline is None:
        return sample
    left = max(0.0, run.called.deadline - time.time())
    timeouts = msgspec.structs.replace(
        sample.timeouts, attempt_s=min(sample.timeouts.attempt_s, left)
    )
    return msgspec.structs.replace(sample, timeouts=timeouts)
