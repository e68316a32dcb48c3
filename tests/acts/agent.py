"""The agent whose behaviour ACTS asks for by the first word of a message (section 11.2)."""

import asyncio

from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Part, Task, TaskState, TaskStatus

from tests.support.agents.conformance_agent import artifact

LONG_S = 3.0
"""How long a long task goes on; one that waits to be canceled goes on for ten minutes."""
STATES = {
    "tck-input-required": TaskState.TASK_STATE_INPUT_REQUIRED,
    "tck-auth-required": TaskState.TASK_STATE_AUTH_REQUIRED,
    "tck-reject-task": TaskState.TASK_STATE_REJECTED,
    "tck-task-failure": TaskState.TASK_STATE_FAILED,
}


class ScenarioAgent(AgentExecutor):
    """Completes, asks, refuses, waits or streams."""

    async def execute(self, context, event_queue):
        """See the SDK."""
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        task = context.current_task
        begun = task.history[0] if task is not None and task.history else context.message
        word = (begun.parts[0].text.split() or [""])[0] if begun.parts else ""
        if task is None and word != "tck-message-response":
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            begun_task = Task(
                id=context.task_id,
                context_id=context.context_id,
                status=status,
                history=[context.message],
            )
            await event_queue.enqueue_event(begun_task)
        said = updater.new_agent_message([Part(text=f"{word}: done")])
        if word == "tck-message-response":
            await event_queue.enqueue_event(said)
        elif word == "tck-multi-turn" and "done" not in context.get_user_input():
            await updater.requires_input()  # without a word: a scenario counts the messages
        elif word in STATES:
            await updater.update_status(STATES[word], said)
        else:
            await self._work(word, updater)
            await updater.complete(said)

    async def _work(self, word, updater):
        if word in ("tck-long-running", "tck-cancel"):
            await updater.start_work()
            await asyncio.sleep(LONG_S if word == "tck-long-running" else 600)
            await updater.add_artifact([artifact("text")])
        elif word.startswith("tck-artifact-"):
            await updater.add_artifact([artifact(word.removeprefix("tck-artifact-"))])
        elif word.startswith("tck-stream-"):
            await updater.start_work()
            for number in range(3 if word == "tck-stream-chunked" else 1):
                text = Part(text=f"chunk {number}")
                await updater.add_artifact([text], artifact_id="out", append=number > 0)

    async def cancel(self, context, event_queue):
        """See the SDK."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()
