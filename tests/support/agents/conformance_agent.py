"""The agent whose behaviour A2A's conformance kit asks for by the beginning of a message's id."""

import asyncio
from typing import Any

from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Part, TaskState
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

FILE = b"conformance\n"
LONG_S = 4.0
"""How long a task goes on to which clients subscribe late: twice the kit's time-out of streams."""


def artifact(kind: str) -> Part:
    """The part of an artifact of some kind."""
    if kind == "file":
        return Part(raw=FILE, filename="output.txt", media_type="text/plain")
    if kind == "file-url":
        url = "https://example.com/output.txt"
        return Part(url=url, filename="output.txt", media_type="text/plain")
    if kind == "data":
        return Part(data=ParseDict({"key": "value", "count": 42}, Value()))
    return Part(text="Generated text content")


STREAMS = {
    "tck-stream-001": [Part(text="Stream hello from TCK")],
    "tck-stream-002": [],
    "tck-stream-003": [Part(text="Stream task lifecycle")],
    "tck-stream-ordering-001": [Part(text="Ordered output")],
    "tck-stream-artifact-text": [Part(text="Streamed text content")],
    "tck-stream-artifact-file": [artifact("file")],
    "tck-stream-artifact-chunked": [Part(text="chunk-1 "), Part(text="chunk-2")],
}
"""By the beginning of a message's id: the parts that are streamed, one chunk each."""


class ConformanceAgent(AgentExecutor):
    """Completes, asks, refuses or streams."""

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK."""
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        name = context.message.message_id
        if name.startswith("tck-input-required"):
            await updater.requires_input()
        elif name.startswith("tck-reject-task"):
            await updater.reject(updater.new_agent_message([Part(text="rejected")]))
        elif name.startswith("tck-message-response"):
            text = Part(text="Direct message response")
            await event_queue.enqueue_event(updater.new_agent_message([text]))
        elif name.startswith("tck-artifact-"):
            kind = "file-url" if name.startswith("tck-artifact-file-url") else name.split("-")[2]
            await updater.add_artifact([artifact(kind)])
            await updater.complete()
        elif name.startswith("test-resubscribe-message-id"):
            await updater.start_work()
            await asyncio.sleep(LONG_S)
            await updater.complete()
        elif (parts := next((p for n, p in STREAMS.items() if name.startswith(n)), None)) is None:
            await updater.complete(updater.new_agent_message([Part(text="Hello from TCK")]))
        else:
            if parts:
                await updater.start_work()
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                await updater.add_artifact(
                    [part], artifact_id="out", append=number > 0, last_chunk=last
                )
            await updater.update_status(TaskState.TASK_STATE_COMPLETED)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits."""
