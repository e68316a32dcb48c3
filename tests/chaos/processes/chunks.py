"""An agent without a model: it writes chunks until a file is there, or asks first."""

import asyncio
import os
from pathlib import Path
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Part, TaskState

GO = "CHUNKS_GO"
"""Names the variable with the file's path."""
PAUSE_S = 2.0


class Chunks(AgentExecutor):
    """Numbers its chunks, so that a reader sees one that is missing or came twice."""

    async def execute(self, context: Any, event_queue: Any) -> None:
        """Ask where the message says so; else write until the file is there."""
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if context.get_user_input() == "ask":
            question = updater.new_agent_message([Part(text="which?")])
            await updater.update_status(TaskState.TASK_STATE_INPUT_REQUIRED, question)
            return
        file, number = Path(os.environ[GO]), 0
        while number < 3 or not file.exists():
            text = Part(text=str(number))
            await updater.add_artifact([text], artifact_id="a", append=number > 0)
            number += 1
            if number >= 3:
                await asyncio.sleep(PAUSE_S)
        await updater.complete(updater.new_agent_message([Part(text="done")]))

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """The host cancels what `execute` awaits."""
