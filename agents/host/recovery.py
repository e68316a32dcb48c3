"""Decide about tasks that a predecessor left unfinished."""

import asyncio
import time
from typing import Any, Final

import msgspec
from a2a.types import Task, TaskState

from odradek.agents.attempt.attempt import Attempt, AttemptState, Ending
from odradek.agents.attempt.event_queue import STATES, end_metadata, status_update
from odradek.agents.attempt.executor import EpisodeExecutor
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import SEND
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.binding.responses import (
    INTERRUPTED,
    SnapshotHeaders,
    read_snapshot,
    snapshot_value,
)
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.agents.host.tasks.replay import LeftTask, begun_again, messages_of
from odradek.agents.settings import AgentSettings
from odradek.schemas.events import Outcome

LEFT: Final = "its host went away"
FAILED: Final = f"{LEFT} while it was working: send the message again, with a message id of its own"


class Recovery:
    """Ends what predecessors left, or goes on with it.

    A task that was being sealed is sealed again with the same outcome: its rewards are in the
    log. A plain message's task that waits for its client waits on; if it was being worked at, the
    policy says whether it fails or begins again. A sample's task is given up, and the next attempt
    follows where one is left.

    Args:
        settings: The host's.
        snapshots: The SDK's store.
        executor: Ends episodes.
    """

    def __init__(
        self, settings: AgentSettings, snapshots: HostTaskStore, executor: EpisodeExecutor
    ) -> None:
        self._settings = settings
        self._snapshots = snapshots
        self._executor = executor

    async def resumed(
        self, owned: RequestPartition, called: RequestHeaders, send: Send, sample: SampleAddress
    ) -> Attempt | None:
        """A plain message's task that goes on where its host died; None if there is none."""
        mark = owned.memory.of_message(send.message_id)
        left = owned.memory.left(mark.task_id) if mark is not None else None
        if left is None or left.mark.terminal or left.mark.outcome:
            return None
        waits = left.mark.state in INTERRUPTED
        if not waits and not self._begins_again(left):
            return None
        task = left.standing() if waits else begun_again(left)
        attempt = left.mark.attempt + (not waits)
        run = _attempt(
            owned, left.mark, send, called, sample, task, attempt, self._settings.max_attempts
        )
        run.adopted = True
        sent = messages_of(task)
        later = len(sent) > 1
        # A later message was being worked at: its request comes again as well, and then is played.
        run.heard.update(sent if waits or not later else sent[:-1])
        run.waits = waits or later
        run.answered = later and not waits
        if run.waits:
            time_left = left.begun_at + sample.timeouts.attempt_s - time.time()
            run.ends_at = asyncio.get_running_loop().time() + time_left
        if waits:
            self._snapshots.adopt(run, task, left.mark)
        else:
            again = msgspec.structs.replace(
                left.mark,
                generation=left.mark.generation + 1,
                state=task.status.state,
                attempt=attempt,
            )
            # If we die above this line, the next owner finds what we found. Below it, one attempt
            # more is counted.
            await self._snapshots.restart(run, task, again)
        return run

    def _begins_again(self, left: LeftTask) -> bool:
        return (
            self._settings.orphans == "restart" and left.mark.attempt < self._settings.max_attempts
        )

    async def next_attempt(
        self,
        owned: RequestPartition,
        send: Send,
        called: RequestHeaders,
        sample: SampleAddress,
        max_attempts: int,
    ) -> int | None:
        """Which attempt at a request is due; None if nothing is left to do.

        Any request may come again: its host died before the commit, or its client sent it twice.
        """
        mark = owned.memory.of_message(send.message_id)
        if mark is None:
            return 1
        if not mark.terminal:
            mark = await self._end(owned, mark, send, called, sample, max_attempts)
        return mark.attempt + 1 if mark.retry else None

    async def strays(self, owned: RequestPartition, position: int) -> int:
        """End unfinished tasks whose requests will not come again; return how many."""
        strays = [mark for mark in owned.memory.unfinished() if mark.offset < position]
        for mark in strays:
            send = Send(
                message_id=mark.message_id,
                sample=None,
                input=msgspec.Raw(b"null"),
                input_value=None,
                value=b"",
            )
            sample = SampleAddress(task_id=mark.message_id)
            called = RequestHeaders(operation=SEND, principal=mark.principal)
            await self._end(owned, mark, send, called, sample, mark.attempt)
        return len(strays)

    async def _end(
        self,
        owned: RequestPartition,
        mark: SnapshotHeaders,
        send: Send,
        called: RequestHeaders,
        sample: SampleAddress,
        max_attempts: int,
    ) -> SnapshotHeaders:
        task = read_snapshot(owned.memory.value(mark.task_id) or b"{}")
        run = _attempt(owned, mark, send, called, sample, task, mark.attempt, max_attempts)
        for state in (AttemptState.OPENING, AttemptState.PLAYING, AttemptState.ENDING):
            run.go(state)
        verdict = (
            Ending(outcome=Outcome(mark.outcome), children=mark.children)
            if mark.outcome
            else Ending(outcome=Outcome.HOST_LOST, error=LEFT if send.sample else FAILED)
        )
        self._snapshots.adopt(run, task, mark)
        try:
            verdict = await self._executor.end(run, verdict)
        finally:
            self._snapshots.forget(run.episode_id)
        return await self._close(owned, run, task, mark, verdict)

    async def _close(
        self,
        owned: RequestPartition,
        run: Attempt,
        task: Task,
        mark: SnapshotHeaders,
        verdict: Ending,
    ) -> SnapshotHeaders:
        state: Any = STATES.get(verdict.outcome, TaskState.TASK_STATE_FAILED)
        update = status_update(run.episode_id, run.context_id, state, verdict.error)
        if mark.outcome and task.status.HasField("message"):
            update.status.message.CopyFrom(task.status.message)  # its agent's last words
        run.captured = self._settings.training
        update.metadata.update(end_metadata(run, verdict))
        task.id = run.episode_id
        task.status.CopyFrom(update.status)
        task.metadata.MergeFrom(update.metadata)
        closed = msgspec.structs.replace(
            mark, generation=mark.generation + 1, state=state, retry=run.retry
        )
        value = snapshot_value(task)
        # If we die above this line, the next owner finds the task unfinished and ends it again: a
        # second EpisodeAborted or seal changes nothing. Below it, the task is closed for good.
        await owned.writer.write(
            self._snapshots.snapshot(closed, value, owned.number),
            self._snapshots.event(run, update, closed.generation),
        )
        owned.memory.put(closed, value)
        return closed


def _attempt(
    owned: RequestPartition,
    mark: SnapshotHeaders,
    send: Send,
    called: RequestHeaders,
    sample: SampleAddress,
    task: Task,
    attempt: int,
    max_attempts: int,
) -> Attempt:
    """The attempt that a predecessor's task was, as ours."""
    return Attempt(
        send=send,
        called=called,
        sample=sample,
        partition=owned.number,
        offset=mark.offset,
        episode_id=mark.task_id,
        context_id=task.context_id,
        attempt=attempt,
        max_attempts=max_attempts,
        writer=owned.writer,
    )
