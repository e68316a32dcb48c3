"""Running the subscribers of docs/subscribe.md, in whatever language they are."""

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2a.types import TaskState, TaskStatus, TaskStatusUpdateEvent

from odradek.agents.binding.responses import event_headers, stream_value
from odradek.infra.bus import BusSettings, ensure_topics, producer, rows, running

PAGE = Path(__file__).parents[3] / "docs" / "subscribe.md"
TASKS = [f"tâche-{n}" for n in range(10)]
STATES = ["TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]
WITHIN_S = 100


def blocks(language: str) -> list[str]:
    """The page's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


async def watched(bus: BusSettings, command: Sequence[str | Path], folder: Path) -> None:
    """Let a subscriber run until it has printed every event, each once, in order of its task."""
    await ensure_topics(bus, rows(["hilo"]))
    await _happen(bus)
    environment = {
        **os.environ,
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
    }
    watcher = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert watcher.stdout
    lines: list[str] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while len(lines) < len(TASKS) * 2 and (line := await watcher.stdout.readline()):
                lines.append(line.decode().strip())
    except TimeoutError:
        lines.append("nothing more in time")
    finally:
        os.killpg(watcher.pid, signal.SIGKILL)
        _, said = await watcher.communicate()
    expected = [f"{task} {n + 1} {state}" for task in TASKS for n, state in enumerate(STATES)]
    assert sorted(expected) == sorted(lines), said.decode()
    for task in TASKS:
        mine = [line for line in lines if line.startswith(f"{task} ")]
        assert mine == sorted(mine)


async def _happen(bus: BusSettings) -> None:
    """Events as hosts write them: packed, in transactions, the first of them aborted, one twice."""
    writer: Any
    async with running(producer(bus, transactional_id="tests.happen"), bus) as writer:
        for tasks, counts in ((["nobody"], False), (TASKS, True)):
            await writer.begin_transaction()
            for task in tasks:
                for generation, state in ((1, STATES[0]), (2, STATES[1]), (2, STATES[1])):
                    status = TaskStatus(state=TaskState.Value(state))
                    event = TaskStatusUpdateEvent(task_id=task, context_id="c", status=status)
                    headers = event_headers(
                        event,
                        task_id=task,
                        generation=generation,
                        source="/agents/hilo",
                        traceparent=None,
                    )
                    await writer.send_and_wait(
                        bus.topic("a2a.events.hilo"),
                        stream_value(event),
                        key=task.encode(),
                        headers=list(headers),
                    )
            await (writer.commit_transaction() if counts else writer.abort_transaction())
