"""Decide about tasks that a predecessor left unfinished."""

from typing import Any

import msgspec
from a2a.types import Task, TaskState

from odradek.agents.attempt.attempt import Attempt, AttemptState, Ending
from odradek.agents.attempt.event_queue import STATES, status_update
from odradek.agents.attempt.executor import EpisodeExecutor
from odradek.agents.attempt.task_store import KafkaTaskStore
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import SEND
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.binding.responses import SnapshotHeaders, read_snapshot, snapshot_value
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.schemas.events import Outcome

LEFT = "its host went away"


class Recovery:
    """Ends what predecessors left.

    A task that was being sealed is sealed again with the same outcome: its rewards are in the
    log. Any other is given up, and the next attempt follows where one is left.
    """

    def __init__(self, snapshots: KafkaTaskStore, executor: EpisodeExecutor) -> None:
        self._snapshots = snapshots
        self._executor = executor

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
            await self._end(owned, mark, send, RequestHeaders(operation=SEND), sample, mark.attempt)
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
        run = Attempt(
            send=send,
            called=called,
            sample=sample,
            partition=owned.number,
            offset=mark.offset,
            episode_id=mark.task_id,
            context_id=task.context_id,
            attempt=mark.attempt,
            max_attempts=max_attempts,
            writer=owned.writer,
        )
        for state in (AttemptState.OPENING, AttemptState.PLAYING, AttemptState.ENDING):
            run.go(state)
        verdict = (
            Ending(outcome=Outcome(mark.outcome))
            if mark.outcome
            else Ending(outcome=Outcome.HOST_LOST, error=LEFT)
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
        task.id = run.episode_id
        task.status.CopyFrom(update.status)
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
