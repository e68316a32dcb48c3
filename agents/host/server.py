"""Serve requests: control operations at once, messages when there is a free slot."""

import asyncio
import time

import msgspec
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.types import Message, SendMessageRequest, Task, TaskState, TaskStatus
from a2a.utils.errors import (
    A2AError,
    InvalidRequestError,
    MethodNotFoundError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.proto_utils import validate_proto_required_fields

from odradek.agents.attempt import events
from odradek.agents.attempt.attempt import Attempt, AttemptState, Fail
from odradek.agents.attempt.slots import RunSlots
from odradek.agents.attempt.task_store import KafkaTaskStore
from odradek.agents.binding import requests
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.errors import RequestRefused
from odradek.agents.host.partition import RequestPartition
from odradek.agents.host.recovery import Recovery
from odradek.agents.host.replies import ReplySender
from odradek.agents.host.task_ids import TASK_ID
from odradek.agents.rollout import Rollout, RolloutTask
from odradek.agents.settings import AgentSettings
from odradek.infra.bus import Record, check_place
from odradek.infra.errors import BusError
from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.episode_tokens import mint
from odradek.schemas import ids
from odradek.schemas.errors import InvalidRecord, SchemaError
from odradek.schemas.events import Outcome
from odradek.schemas.ids import key_shown


class RequestServer:
    """Serves the requests of a host.

    Args:
        settings: The host's.
        handler: The SDK's request handler, over the EpisodeExecutor.
        runs: Opened runs by task id, shared with the executor.
        snapshots: The SDK's store.
        recovery: Ends what predecessors left.
        replies: Answers.
        keys: Sign the agents' tokens.
        source: Of the events, for CloudEvents.
        fail: Called with an error of the log.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        handler: RequestHandler,
        runs: dict[str, Attempt],
        snapshots: KafkaTaskStore,
        recovery: Recovery,
        replies: ReplySender,
        keys: list[str],
        source: str,
        fail: Fail,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._runs = runs
        self._snapshots = snapshots
        self._recovery = recovery
        self._replies = replies
        self._keys = keys
        self._source = source
        self._fail = fail
        self._places = RunSlots(settings.concurrency)
        self.stopping = False

    def receive(self, owned: RequestPartition, record: Record) -> None:
        """Begin to serve a request; returns at once."""
        task = asyncio.create_task(self._serve(owned, record))
        owned.tasks.add(task)
        task.add_done_callback(lambda done: self._served(owned, done))

    def _served(self, owned: RequestPartition, task: "asyncio.Task[None]") -> None:
        owned.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _serve(self, owned: RequestPartition, record: Record) -> None:
        called: RequestHeaders | None = None
        finished = True
        try:
            called = requests.called(record)
            await self._check_address(called)
            _check_home(record, owned.count)
            finished = await self._operate(owned, record, called)
        except RequestRefused as error:
            await self._replies.dead_letter(record, error.reason, error.detail)
            if called is not None and error.reason != "bad_reply_address":
                await self._replies.error(called, InvalidRequestError(str(error)))
        except A2AError as error:
            assert called is not None
            if called.reply_topic:
                await self._replies.error(called, error)
            else:
                # Nobody waits for an answer, so people shall at least be able to see it.
                await self._replies.dead_letter(record, _reason(error), str(error))
        except BusError as error:
            self._fail(error, owned.writer)
            return
        if finished and not owned.lost:
            # If we die above this line, the request comes again and finds its snapshots. Below it,
            # the low-water mark may pass it.
            owned.backlog.finish(record.offset)

    async def _check_address(self, called: RequestHeaders) -> None:
        try:
            await self._replies.check(called)
        except SchemaError as error:
            raise RequestRefused("bad_reply_address", str(error)) from None

    async def _operate(
        self, owned: RequestPartition, record: Record, called: RequestHeaders
    ) -> bool:
        if called.operation == requests.SEND:
            return await self._send(owned, record, called)
        if called.operation == requests.CANCEL:
            await self._cancel(owned, record, called)
            return True
        if called.operation in requests.KNOWN:
            raise UnsupportedOperationError(f"{called.operation} is not served over Kafka yet")
        raise MethodNotFoundError("this is no operation of A2A")

    async def _cancel(
        self, owned: RequestPartition, record: Record, called: RequestHeaders
    ) -> None:
        """Runs at once, however full the host is."""
        request = requests.cancel(record)
        run = owned.runs.get(request.id)
        if run is None:
            snapshot = owned.memory.of_task(request.id)
            raise TaskNotFoundError if snapshot is None else TaskNotCancelableError
        if run.state in {AttemptState.WAITING, AttemptState.OPENING}:
            run.stop(Outcome.CANCELLED)
            await run.closed.wait()
            await self._replies.answer(called, run.task)
            return
        if run.state is not AttemptState.PLAYING:
            raise TaskNotCancelableError
        task = await self._handler.on_cancel_task(request, ServerCallContext())
        await self._replies.answer(called, task)

    async def _send(self, owned: RequestPartition, record: Record, called: RequestHeaders) -> bool:
        send = requests.send(record)
        if send.task_id:
            raise UnsupportedOperationError("follow-ups are not served over Kafka yet")
        if not send.plain:
            validate_proto_required_fields(send.proto())
        if send.message_id in owned.messages:
            metrics.moved(metrics.DUPLICATES, stage="agent")
            return True
        owned.messages.add(send.message_id)
        try:
            return await self._attempts(owned, record, called, send)
        finally:
            owned.messages.discard(send.message_id)

    async def _attempts(
        self, owned: RequestPartition, record: Record, called: RequestHeaders, send: Send
    ) -> bool:
        sample = send.sample or SampleAddress(task_id=send.message_id)
        max_attempts = sample.max_attempts or self._settings.max_attempts
        attempt = await self._recovery.next_attempt(owned, send, called, sample, max_attempts)
        if attempt is None:
            metrics.moved(metrics.DUPLICATES, stage="agent")
            await self._replies.answer(called, _finished(owned, send.message_id))
        while attempt is not None:
            run = self._make(owned, record.offset, called, send, sample, attempt, max_attempts)
            await self._attempt(owned, run)
            if run.lost or (run.retry and self.stopping):
                return False  # whoever owns the partition next goes on from here
            attempt = attempt + 1 if run.retry else None
            if attempt is None:
                await self._replies.answer(called, run.task)
        return True

    def _make(
        self,
        owned: RequestPartition,
        offset: int,
        called: RequestHeaders,
        send: Send,
        sample: SampleAddress,
        attempt: int,
        max_attempts: int,
    ) -> Attempt:
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

    async def _attempt(self, owned: RequestPartition, run: Attempt) -> None:
        owned.runs[run.episode_id] = run
        if owned.lost:
            run.lose()
        try:
            async with self._places.slot(run):
                if run.lost:
                    return
                # Later attempts are promised by the EpisodeAborted before them, so they are made.
                if run.attempt == 1 and run.called.expired(time.time()):
                    raise RequestRefused("expired", "nobody waits for the answer any more")
                with telemetry.span(
                    "agent.run", parent=run.called.traceparent, episode_id=run.episode_id
                ) as traceparent:
                    run.called = msgspec.structs.replace(run.called, traceparent=traceparent)
                    request = run.send.proto()
                    await self._open(run, request)
                    await self._play(owned, run, request)
        finally:
            owned.runs.pop(run.episode_id, None)
            run.closed.set()

    async def _open(self, run: Attempt, request: SendMessageRequest) -> None:
        run.go(AttemptState.OPENING)
        run.rollout = self._rollout(run)
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
        # One transaction: whoever has lost the partition can open nothing. If we die above this
        # line, nothing has begun. Below it, the successor finds the snapshot and gives up.
        await run.writer.write(snapshot, opened, event)
        crash_point("opened_before_run")

    async def _play(
        self, owned: RequestPartition, run: Attempt, request: SendMessageRequest
    ) -> None:
        self._runs[run.episode_id] = run
        request.message.context_id = run.context_id
        try:
            await self._handler.on_message_send(
                request, ServerCallContext(state={TASK_ID: run.episode_id})
            )
            await run.over.wait()
            if not run.lost:
                await self._snapshots.published(run.episode_id)
            crash_point("status_before_finish")
            if not run.lost:
                run.go(AttemptState.ENDED)
        finally:
            self._runs.pop(run.episode_id, None)
            run.task = self._snapshots.task(run.episode_id)
            mark = self._snapshots.forget(run.episode_id)
            if mark is not None and not run.lost:
                owned.memory.put(mark)

    def _rollout(self, run: Attempt) -> Rollout:
        sample = run.sample
        model = sample.model or self._settings.policy
        claims = events.claims(run, self._settings, model)
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
            api_key=mint(claims, self._keys),
            model=model,
            episode_id=run.episode_id,
            sample=sample.sample,
            attempt=run.attempt,
            timeout_s=sample.timeouts.attempt_s,
            traceparent=run.called.traceparent,
        )


def _check_home(record: Record, partitions: int) -> None:
    """Raise RequestRefused where a repeat, or a cancel, would reach another host."""
    if key_shown(record.key) != record.key or record.key is None:
        raise RequestRefused("wrong_key", "a request's key is its task, context or message id")
    try:
        check_place(record, partitions)
    except InvalidRecord as error:
        raise RequestRefused(error.reason, error.detail) from None


def _finished(owned: RequestPartition, message_id: str) -> Task:
    """What is known of a finished task: that it is finished."""
    mark = owned.memory.of_message(message_id)
    assert mark is not None
    return Task(id=mark.task_id, status=TaskStatus(state=mark.state))


def _reason(error: A2AError) -> str:
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
