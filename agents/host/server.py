"""Serve requests: control operations at once, messages when there is a free slot."""

import asyncio
from typing import Any

import msgspec
from a2a.server.request_handlers import RequestHandler
from a2a.types import (
    CancelTaskRequest,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    InvalidRequestError,
    MethodNotFoundError,
    TaskNotCancelableError,
    UnsupportedOperationError,
)
from a2a.utils.proto_utils import validate_proto_required_fields

from odradek.agents.attempt.attempt import Attempt, AttemptState, Fail
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.binding import requests
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import (
    CANCEL,
    CARD,
    CREATE_PUSH,
    GET,
    LIST,
    OPERATIONS,
    SEND,
    STREAM,
    SUBSCRIBE,
)
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.cards.card import accepted
from odradek.agents.errors import RequestRefused
from odradek.agents.host.attempt_runner import AttemptRunner
from odradek.agents.host.cards import OwnCards
from odradek.agents.host.recovery import Recovery
from odradek.agents.host.replies import ReplySender
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.agents.host.tasks.queries import TaskQueries
from odradek.agents.host.tasks.replay import messages_of
from odradek.agents.push.operations import PushOperations
from odradek.agents.settings import AgentSettings
from odradek.agents.trust.principal import check_owner, on_behalf, own_message_id
from odradek.agents.trust.verifier import RequestVerifier, check_sample
from odradek.infra.bus import Record, check_place
from odradek.infra.errors import BusError
from odradek.infra.runtime import metrics
from odradek.schemas.errors import InvalidRecord, SchemaError
from odradek.schemas.events import Outcome
from odradek.schemas.ids import key_shown


class RequestServer:
    """Serves the requests of a host.

    Args:
        settings: The host's.
        handler: The SDK's request handler, over the EpisodeExecutor.
        runner: Plays attempts.
        snapshots: The SDK's store.
        recovery: Ends what predecessors left.
        queries: Answers questions about tasks.
        push: Keeps push notification configs.
        cards: The agent's.
        replies: Answers.
        verifier: Says who asks.
        fail: Called with an error of the log.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        handler: RequestHandler,
        runner: AttemptRunner,
        snapshots: HostTaskStore,
        recovery: Recovery,
        queries: TaskQueries,
        push: PushOperations,
        cards: OwnCards,
        replies: ReplySender,
        verifier: RequestVerifier,
        fail: Fail,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._runner = runner
        self._snapshots = snapshots
        self._recovery = recovery
        self._queries = queries
        self._push = push
        self._cards = cards
        self._replies = replies
        self._verifier = verifier
        self._fail = fail
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
            called = self._verifier.verified(record, called)
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
        if called.operation not in OPERATIONS:
            raise MethodNotFoundError("this is no operation of A2A")
        if called.operation in {SEND, STREAM}:
            return await self._send(owned, record, called)
        # All others run at once, however full the host is.
        request, who = requests.parse(record, called.operation), called.principal
        if called.operation == CANCEL:
            await self._cancel(owned, request, called)
        elif called.operation == GET:
            await self._replies.answer(called, await self._queries.get(owned, request, who))
        elif called.operation == LIST:
            await self._replies.answer(called, await self._queries.list(request, who))
        elif called.operation == SUBSCRIBE:
            await self._replies.answer(called, await self._queries.subscribe(owned, request, who))
        elif called.operation == CARD:
            await self._replies.answer(called, self._cards.for_caller(who))
        else:
            await self._replies.answer(called, await self._configure(owned, called, request))
        return True

    async def _configure(
        self, owned: RequestPartition, called: RequestHeaders, request: Any
    ) -> Any:
        """One of the four operations on push notification configs."""

        async def generation(task_id: str) -> int:
            return (await self._queries.find(owned, task_id, called.principal))[1]

        return await self._push.serve(
            owned.push, owned.writer, owned.number, called.operation, request, generation
        )

    async def _cancel(
        self, owned: RequestPartition, request: CancelTaskRequest, called: RequestHeaders
    ) -> None:
        await owned.settled(request.id)
        run = owned.runs.get(request.id)
        if run is None:
            await self._queries.find(owned, request.id, called.principal)
            raise TaskNotCancelableError
        check_owner(run.called.principal, called.principal)
        if run.state in {AttemptState.WAITING, AttemptState.OPENING}:
            run.stop(Outcome.CANCELLED)
            await run.closed.wait()
            await self._replies.answer(called, run.task)
            return
        if run.state not in {AttemptState.PLAYING, AttemptState.ASKING}:
            raise TaskNotCancelableError
        task = await self._handler.on_cancel_task(request, on_behalf(called.principal))
        await self._replies.answer(called, task)

    async def _send(self, owned: RequestPartition, record: Record, called: RequestHeaders) -> bool:
        send = requests.send(record)
        if not send.plain:
            validate_proto_required_fields(send.proto())
        self._check_types(send)
        if (send.history_length or 0) < 0:
            raise InvalidParamsError("history length must be non-negative")
        called = msgspec.structs.replace(called, history_length=send.history_length)
        push = await self._push.check(send.push) if send.push else None
        send = self._owned_by(called, send)
        if send.task_id:
            return await self._follow_up(owned, called, send, push)
        if send.message_id in owned.messages:
            metrics.moved(metrics.DUPLICATES, stage="agent")
            await self._join(owned, called, send)
            return True
        owned.messages.add(send.message_id)
        try:
            return await self._attempts(owned, record, called, send, push)
        finally:
            owned.messages.discard(send.message_id)
            mark = owned.memory.of_message(send.message_id)
            owned.recovered(mark.task_id if mark else "")

    def _owned_by(self, called: RequestHeaders, send: Send) -> Send:
        """A message whose id is its principal's own. Raises RequestRefused for a false sample."""
        if send.sample is not None:
            check_sample(called)
            return send
        name = send.message_id
        if called.correlation_id and not self._settings.idempotent:
            name = called.correlation_id
        if not send.task_id:  # within a task, ids are its principal's anyhow
            name = own_message_id(name, called.principal)
        return msgspec.structs.replace(send, message_id=name)

    def _check_types(self, send: Send) -> None:
        """Raise ContentTypeNotSupportedError for a part that the card does not accept."""
        modes = self._cards.public.default_input_modes
        refused = sorted({kind for kind in send.media_types if not accepted(kind, modes)})
        if refused:
            taken = ", ".join(sorted(modes))
            raise ContentTypeNotSupportedError(
                f"this agent takes {taken}, not {', '.join(refused)}"
            )

    async def _join(self, owned: RequestPartition, called: RequestHeaders, send: Send) -> None:
        """Answer a message that is being served already, which came again."""
        run = next((run for run in owned.runs.values() if send.message_id in run.heard), None)
        if run is None or not called.reply_topic:
            return
        check_owner(run.called.principal, called.principal)
        if called.operation == STREAM or send.at_once:
            await run.opened.wait()
            await self._runner.answer_as_it_stands(owned, called, run.episode_id)
        else:
            await run.settled.wait()
            await self._replies.answer(called, run.result or self._snapshots.task(run.episode_id))

    async def _follow_up(
        self, owned: RequestPartition, called: RequestHeaders, send: Send, push: Any
    ) -> bool:
        """Hand a message to the task that it continues; False if its successor shall do so.

        Raises A2AError.
        """
        await owned.settled(send.task_id)
        run = owned.runs.get(send.task_id)
        if run is not None:
            check_owner(run.called.principal, called.principal)
        if run is None or run.state not in {AttemptState.PLAYING, AttemptState.ASKING}:
            task, _ = await self._queries.find(owned, send.task_id, called.principal)
            if send.message_id in messages_of(task):
                await self._runner.answer_as_it_stands(owned, called, task.id)
                return True
            raise UnsupportedOperationError(
                f"task {task.id} takes no message any more: it is "
                f"{TaskState.Name(task.status.state)}"
            )
        if send.context_id not in {"", run.context_id}:
            raise InvalidParamsError(f"task {send.task_id} belongs to another context")
        if send.message_id in run.heard:
            metrics.moved(metrics.DUPLICATES, stage="agent")
            await self._runner.answer_as_it_stands(owned, called, run.episode_id)
            return True
        run.heard.add(send.message_id)
        if push is not None:
            push.task_id = send.task_id
            create = msgspec.structs.replace(called, operation=CREATE_PUSH)
            await self._configure(owned, create, push)
        request = send.proto()
        request.message.context_id = run.context_id
        if called.operation == STREAM:
            head = await self._queries.head(owned, run.episode_id, called.principal)
            await self._replies.answer(called, head)
        task = await self._runner.follow_up(run, request)
        if run.lost:
            return False
        if called.operation != STREAM:
            await self._replies.answer(called, task)
        return True

    async def _attempts(
        self,
        owned: RequestPartition,
        record: Record,
        called: RequestHeaders,
        send: Send,
        push: Any,
    ) -> bool:
        sample = send.sample or SampleAddress(task_id=send.message_id)
        if (mark := owned.memory.of_message(send.message_id)) is not None:
            check_owner(mark.principal, called.principal)
        if send.sample is None:
            run = await self._recovery.resumed(owned, called, send, sample)
            if run is not None:
                return await self._play(owned, run)
        # Who sends a plain message waits for this task, and not for another that takes its place.
        max_attempts = sample.max_attempts or (self._settings.max_attempts if send.sample else 1)
        attempt = await self._recovery.next_attempt(owned, send, called, sample, max_attempts)
        if attempt is None:
            metrics.moved(metrics.DUPLICATES, stage="agent")
            mark = owned.memory.of_message(send.message_id)
            assert mark is not None
            await self._runner.answer_as_it_stands(owned, called, mark.task_id)
        while attempt is not None:
            run = self._runner.make(
                owned, record.offset, called, send, sample, attempt, max_attempts
            )
            run.push = push
            if not await self._play(owned, run):
                return False
            attempt = attempt + 1 if run.retry else None
        return True

    async def _play(self, owned: RequestPartition, run: Attempt) -> bool:
        """Play an attempt, and answer with its end; False if the next is for another host."""
        await self._runner.play(owned, run)
        if run.lost or (run.retry and self.stopping):
            return False  # whoever owns the partition next goes on from here
        if not run.retry and not run.answered:
            await self._replies.answer(run.called, run.result)
        return True


def _check_home(record: Record, partitions: int) -> None:
    """Raise RequestRefused where a repeat, or a cancel, would reach another host."""
    if key_shown(record.key) != record.key or record.key is None:
        raise RequestRefused("wrong_key", "a request's key is its task, context or message id")
    try:
        check_place(record, partitions)
    except InvalidRecord as error:
        raise RequestRefused(error.reason, error.detail) from None


def _reason(error: A2AError) -> str:
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
