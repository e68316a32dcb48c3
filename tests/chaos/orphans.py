"""`scripts/prove kills`: kill -9 a host under many running tasks; every one ends, by its policy."""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
from a2a.types import (
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import UnsupportedOperationError

from odradek.agents.binding.responses import read_event
from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.host.tasks.replay import apply
from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.bus import BusSettings, ensure_topics, to_end
from odradek.schemas.topics import AGENT_TOPICS, CARDS, agent_topic
from tests.chaos.processes.chunks import GO

ROOT = Path(__file__).parents[2]
AGENT = "chunks"
ASKS_EVERY = 10
WAIT_S = 600.0
ASKS, DONE, FAILED = (
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_FAILED,
)


class Stream:
    """What a client saw of its task, over all its streams."""

    def __init__(self, transport: KafkaTransport, number: int) -> None:
        self._transport = transport
        self.asks = number % ASKS_EVERY == 0
        self.message = f"m{number}"
        self.task = Task()
        self.begun = asyncio.Event()

    async def follow(self) -> None:
        """Send the message; stream to the task's end, or to its question and the end after it."""
        await self._send("ask" if self.asks else "write", self.message)
        if self.asks:
            assert self.task.status.state == ASKS, self.task
            await HOST.killed.wait()
            await self._send("write", f"{self.message}/answer", self.task.id)

    async def resubscribe(self) -> Task:
        """See the task by a second stream from now on, as one that has lost its place."""
        seen = Task()
        stream = self._transport.subscribe(SubscribeToTaskRequest(id=self.task.id))
        try:
            async for event in stream:
                apply(seen, event)
        except UnsupportedOperationError:
            seen = await self._transport.get_task(GetTaskRequest(id=self.task.id))
        return seen

    async def standing(self) -> Task:
        """The task by GetTask."""
        return await self._transport.get_task(GetTaskRequest(id=self.task.id))

    async def _send(self, text: str, message: str, task: str = "") -> None:
        request = SendMessageRequest(
            message=Message(
                message_id=message, role=Role.ROLE_USER, parts=[Part(text=text)], task_id=task
            )
        )
        async for event in self._transport.send_message_streaming(request):
            apply(self.task, event)
            if self.task.artifacts or self.task.status.state == ASKS:
                self.begun.set()


class HostProcess:
    """The host, as a process of its own that can be killed."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self.killed = asyncio.Event()

    async def start(self) -> None:
        """Start it, under the name that it had before."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("odradek")), "agent", "tests.chaos.processes.chunks:Chunks",
                "--name", AGENT, "--instance", "one", "--concurrency", "100000",
                cwd=ROOT, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    async def watch(self) -> None:
        """Raise RuntimeError once it ends although nobody killed it."""
        while (process := self._process) and (await process.wait()) == -signal.SIGKILL:
            while self._process is process:
                await asyncio.sleep(0.1)
        raise RuntimeError(f"the host ended by itself: {self._log.read_text()[-2000:]}")

    async def kill(self) -> None:
        """With SIGKILL."""
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """In good order."""
        self._process.terminate()
        await self._process.wait()


HOST: HostProcess


async def prove(
    bus: BusSettings, folder: Path, *, tasks: int, orphans: str, kills: int
) -> dict[str, Any]:
    """Run it; what came of the tasks, and what is wrong with them."""
    global HOST  # noqa: PLW0603 - one host a run
    go = folder / "go"
    environment = os.environ | {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "ODRADEK_AGENT_TRAINING": "false",
        "ODRADEK_AGENT_ORPHANS": orphans,
        "ODRADEK_MAX_ATTEMPTS": str(kills + 1),
        "PYTHONPATH": str(ROOT),
        GO: str(go),
    }
    required = [(agent_topic(row, AGENT), row) for row in AGENT_TOPICS]
    await ensure_topics(bus, [(CARDS.name, CARDS), *required])
    HOST = HostProcess(environment, folder / "host.log")
    await HOST.start()
    async with KafkaConnection(bus) as connection:
        transport = KafkaTransport(connection, AGENT, timeout_s=WAIT_S)
        streams = [Stream(transport, number) for number in range(tasks)]
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            watching = group.create_task(HOST.watch())
            following = {group.create_task(stream.follow()) for stream in streams}
            await asyncio.gather(*(stream.begun.wait() for stream in streams))
            for _ in range(kills):
                running = sum(stream.task.status.state not in {DONE, FAILED} for stream in streams)
                killed_at = time.monotonic()
                await HOST.kill()
                await HOST.start()
                again = await asyncio.gather(*(stream.standing() for stream in streams))
                taken_over_s = time.monotonic() - killed_at
                wait = [task.status.state for task in again].count(ASKS)
            HOST.killed.set()
            resubscribed = [group.create_task(stream.resubscribe()) for stream in streams]
            go.touch()
            await asyncio.wait({*following, *resubscribed})
            watching.cancel()
        ended = [await stream.standing() for stream in streams]
        await HOST.stop()
    return {
        "tasks": tasks, "orphans": orphans, "kills": kills, "running_when_killed": running,
        "waiting_after": wait, "taken_over_s": round(taken_over_s, 1),
        "completed": sum(task.status.state == DONE for task in ended),
        "failed": sum(task.status.state == FAILED for task in ended),
        "problems": [
            *await generations(bus, {task.id for task in ended}),
            *(p for each in zip(streams, ended, resubscribed, strict=True)
              for p in problems(*each, orphans=orphans)),
        ],
    }  # fmt: skip


def problems(
    stream: Stream, task: Task, second: "asyncio.Task[Task]", *, orphans: str
) -> list[str]:
    """What is wrong with a task."""
    wanted = DONE if orphans == "restart" or stream.asks else FAILED
    found = []
    if task.status.state != wanted:
        found.append(f"{stream.message} is {TaskState.Name(task.status.state)}")
    if shown(stream.task) != shown(task):
        found.append(f"{stream.message}: its stream showed another task than GetTask")
    if shown(second.result()) != shown(task):
        found.append(f"{stream.message}: the stream that came later showed another task")
    chunks = [part.text for artifact in task.artifacts for part in artifact.parts]
    if chunks != [str(number) for number in range(len(chunks))] or len(chunks) < 3:
        found.append(f"{stream.message} has chunks {chunks}")
    return found


def shown(task: Task) -> tuple[Any, ...]:
    """What streams show of a task: all but what its client said."""
    return task.id, task.status, list(task.artifacts)


async def generations(bus: BusSettings, tasks: set[str]) -> list[str]:
    """Tasks whose events are not numbered 1, 2, 3, … in the order of the log."""
    numbers = defaultdict(list)
    async for record in to_end(bus, f"a2a.events.{AGENT}"):
        numbers[record.key].append(read_event(record.headers).generation)
    return [
        f"task {task}: generations {found}"
        for task in tasks
        if (found := numbers[task]) != list(range(1, len(found) + 1)) or not found
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--tasks", type=click.IntRange(10), default=1000, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the result there.")
def main(tasks: int, kills: int, out: Path | None) -> None:
    """Kill -9 a host under running tasks, once for each policy of orphans.

    Every tenth task waits for its client as the host dies. Each task ends by its policy, its events
    are numbered without gap or double, and what two streams showed of it is what GetTask says.
    """
    runs = []
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        for orphans in ("fail", "restart"):
            bus = BusSettings(
                bootstrap_servers=broker.bootstrap_servers, topic_prefix=f"{uuid4().hex[:6]}."
            )
            place = Path(folder) / orphans
            place.mkdir()
            run = asyncio.run(prove(bus, place, tasks=tasks, orphans=orphans, kills=kills))
            click.echo(json.dumps({**run, "problems": run["problems"][:10]}))
            runs.append(run)
    if out is not None:
        out.write_text(
            json.dumps({"command": f"scripts/prove kills --tasks {tasks}", "runs": runs}, indent=2)
            + "\n"
        )
    sys.exit(any(run["problems"] for run in runs))


if __name__ == "__main__":
    main()
