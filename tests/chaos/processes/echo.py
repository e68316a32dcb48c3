"""An agent that says five words, one after another, and writes down whom it heard."""

import asyncio
import os
from pathlib import Path
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Part

from tests.chaos.verification.oracle import ECHOED

HEARD = "ECHO_HEARD"
"""Names the variable with the path of the file that gets a line for each message."""
PAUSE_S = 0.2


class Echo(AgentExecutor):
    """Numbers its words, so that a reader sees one that is missing or came twice."""

    async def execute(self, context: Any, event_queue: Any) -> None:
        """Say all words, then complete."""
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        with Path(os.environ[HEARD]).open("a", encoding="utf-8") as file:
            file.write(context.get_user_input() + "\n")
        await updater.start_work()
        for number, word in enumerate(ECHOED):
            await updater.add_artifact(
                [Part(text=word)],
                artifact_id="a",
                append=number > 0,
                last_chunk=number == len(ECHOED) - 1,
            )
            await asyncio.sleep(PAUSE_S)
        await updater.complete()

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """The host cancels what `execute` awaits."""
