"""A project that runs: broker, model, topics, processes, and the tally of what happens."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.app.project.processes import HOST, RunAddresses, grace_of, specs
from odradek.infra.app.project.project import Project
from odradek.infra.app.project.work import (
    request_keys,
    token_keys,
    writable,
    write_environment,
)
from odradek.infra.app.session import targets
from odradek.infra.app.session.follower import RunFollower
from odradek.infra.app.session.stats import RunStats
from odradek.infra.app.supervisor import ChildState, Spec, Supervisor
from odradek.infra.bus import BusSettings, ensure_topics, rows
from odradek.infra.errors import ProjectError
from odradek.infra.runtime import metrics
from odradek.infra.runtime.metrics.endpoint import served_port

Say = Callable[[str], None]
"""Called with a few words about the work under way."""
TINY = "tiny"


@dataclass
class Session:
    """A running project."""

    project: Project
    bus: BusSettings
    places: RunAddresses
    supervisor: Supervisor
    watch: RunFollower

    @property
    def tally(self) -> RunStats:
        """The counts so far."""
        return self.watch.tally


@asynccontextmanager
async def running(
    project: Project, say: Say, *, keep: bool = True, seed: int = 0
) -> AsyncIterator[Session]:
    """Everything that a project names, until the block ends; then nothing of it is left.

    Args:
        project: What to run.
        say: Called with each step of the start, in a few words.
        keep: Whether the data of a local broker outlives the block.
        seed: Of a model made on the spot.

    Raises:
        ProjectError: The project cannot run as it is.
        SupervisorError: A process refuses to start; its last line is in the message.
        LocalKafkaError: The local broker does not start.
    """
    _refuse_unspeakable(project.folder)
    with writable(project.work):
        project.work.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        model = asyncio.create_task(_model(project, say, seed))
        stack.push_async_callback(_settle, model)
        bus = await _bus(project, say, stack, keep=keep)
        await ensure_topics(bus, rows(agent.name for agent, _ in project.agents))
        say("making the model")
        places = RunAddresses(
            bootstrap_servers=bus.bootstrap_servers,
            token_keys=token_keys(project.work),
            request_keys=request_keys(project.work, bus),
            proxy_port=_proxy_port(project),
            engine_port=free_port(),
            model=await model,
        )
        write_environment(project.work, bus, places)
        say("starting the processes")
        with writable(project.work):
            supervisor = Supervisor(
                _specs(project, places), project.work / "logs", grace_s=grace_of(project)
            )
        _show(supervisor)
        await stack.enter_async_context(supervisor)
        await supervisor.ready()
        tally = RunStats(component=project.evaluation.component, success=project.evaluation.success)
        watch = RunFollower(bus, tally, since="beginning")
        reading = asyncio.create_task(watch.run())
        stack.push_async_callback(_settle, reading)
        yield Session(project, bus, places, supervisor, watch)


def _specs(project: Project, places: RunAddresses) -> list[Spec]:
    """The processes; where Prometheus is to find them, each has a port and stands in a file."""
    found = specs(project, places)
    if targets.wanted():
        found = targets.with_ports(found, free_port)
        targets.write(project.work, found, served_port())
    return found


def _show(supervisor: Supervisor) -> None:
    """Let metrics say how the processes are."""
    metrics.gauge(
        metrics.RESTARTS, lambda: [(n, (name,)) for name, n in supervisor.restarts.items()]
    )
    metrics.gauge(
        metrics.READY,
        lambda: [
            (float(state is ChildState.READY), (name,)) for name, state in supervisor.states.items()
        ],
    )


def _refuse_unspeakable(folder: Path) -> None:
    """Raise ProjectError for a folder that no text can name: the model's libraries want text."""
    name = os.fsencode(folder).decode(errors="backslashreplace")
    try:
        os.fsencode(folder).decode()
    except UnicodeDecodeError:
        raise ProjectError(f"the name of {name} is not in UTF-8: rename the folder") from None


async def guard(session: Session, work: asyncio.Task[None]) -> None:
    """Wait for `work`; raise at once if a process can no longer be kept running."""
    keeping = asyncio.create_task(session.supervisor.wait())
    try:
        await asyncio.wait({work, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
        await work
    finally:
        for task in (work, keeping):
            await _settle(task)


async def _settle(task: "asyncio.Task[object]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _bus(project: Project, say: Say, stack: AsyncExitStack, *, keep: bool) -> BusSettings:
    variables = project.environment("kafka")
    servers = os.environ.get("ODRADEK_KAFKA_BOOTSTRAP_SERVERS") or variables.get(
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS"
    )
    if not servers:
        say("starting Kafka")
        broker = await stack.enter_async_context(
            LocalBroker(project.work / "kafka" if keep else None)
        )
        servers = broker.bootstrap_servers
    values = {value.key: value.value for value in project.entries["kafka"][0].values}
    return BusSettings(**{**values, "bootstrap_servers": servers})


async def _model(project: Project, say: Say, seed: int) -> str:
    """The model to begin with: a name, a folder, or one made now."""
    engine = project.engine
    if engine.model != TINY:
        if not engine.model and (not engine.url or "trainer" in project.written):
            raise ProjectError(
                f"{project.path}: engine.model is missing: name a folder, a Hugging Face model, "
                "or 'tiny' for one made on the spot"
            )
        return engine.model
    folder = project.work / "models" / f"tiny-{seed}"
    if (folder / "tiny.json").exists():
        return str(folder)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "odradek.infra.app.session.warm_up",
        engine.warm_up, str(folder), str(engine.warm_up_steps), str(seed),
        cwd=project.folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise ProjectError(f"the tiny model could not be made: {last}")
    say("the model is made")
    return str(folder)


def _proxy_port(project: Project) -> int:
    setting = next(v for v in project.entries["proxy"][0].values if v.key == "port")
    return free_port() if setting.origin == "default" or not setting.value else int(setting.value)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
