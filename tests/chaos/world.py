"""The processes of a run: started as a user starts them, restarted when they die, ended in order."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from odradek.infra.bus import BusSettings
from odradek.infra.runtime.episode_tokens import new_key
from odradek.infra.runtime.process import die_with_parent
from tests.chaos.processes.engine import SERVED
from tests.chaos.verification import engine_checks, oracle
from tests.support.suite.child_processes import python_path

READY = b"ready:"
STOP_S = 30.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MAX_ATTEMPTS = 5
"""At a sample."""
RUNS_AT_ONCE = 16
"""Of a host."""
CRASH_LOOP = 6
"""So many deaths in a row that nobody asked for, without getting ready, end the run."""


@dataclass(frozen=True)
class Death:
    """The end of a process that was killed."""

    process: str
    at: float
    """Unix time."""
    point: str = ""
    """The crash point that killed it; "" for a kill by the clock."""
    partitions: tuple[int, ...] = ()
    """Input partitions that it had said to own, or else its start before: they are still its."""
    early: bool = False
    """Whether it died before it said so itself."""
    ready: bool = True
    """Whether it had got ready before: False for one that was still starting."""


class Broke(Exception):
    """The run cannot go on."""


class Process:
    """One process under a watcher that starts it again."""

    def __init__(self, name: str, command: tuple[str, ...], env: Mapping[str, str], log: Path):
        self.name = name
        self.command = command
        self.env = dict(env)
        self.log = log
        self.arms: list[str] = []
        """Crash points of the next starts."""
        self.armed = ""
        self.deaths: list[Death] = []
        self.restarts = 0
        """How often it was told to end in order, and started again."""
        self.held: tuple[int, ...] = ()
        """The partitions that it last said to own, in whichever start."""
        self.unasked: list[int] = []
        """Exit codes of ends that nobody asked for."""
        self.ready = asyncio.Event()
        self.died = asyncio.Event()
        """Set at each death; who waits clears it."""
        self.child: asyncio.subprocess.Process | None = None
        self.stopping = False
        self.failure: Broke | None = None
        self.cpu_at_end = 0.0
        self._shot = False
        self._told = False
        """Whether it was told to end in order, to be started again."""
        self._from = 0
        self._in_a_row = 0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its id while it runs."""
        return self.child.pid if self.child is not None and self.child.returncode is None else None

    def start(self) -> None:
        """Start it, and again whenever it dies."""
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while not self.stopping:
            await self._spawn()
            told = asyncio.create_task(self._say_ready())
            assert self.child is not None
            code = await self.child.wait()
            at = time.time()
            told.cancel()
            was_ready = READY in self._said()
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            if self.stopping:
                return
            if self._told and code == 0:
                self._told = False
                self.restarts += 1
            elif code == -signal.SIGKILL and (self._shot or self.armed):
                point = "" if self._shot else self.armed
                owned = self.partitions()
                self.held = owned or self.held
                self.deaths.append(
                    Death(self.name, at, point, self.held, early=not owned, ready=was_ready)
                )
                self._in_a_row = 0
            else:
                self.unasked.append(code)
                self._in_a_row = 0 if was_ready else self._in_a_row + 1
                if self._in_a_row >= CRASH_LOOP:
                    self.failure = Broke(f"{self.name} ends again and again: {self.tail()}")
                    return
                await asyncio.sleep(0.2)
            self.died.set()

    async def _spawn(self) -> None:
        self._shot = False
        self.ready.clear()
        self.armed = self.arms.pop(0) if self.arms else ""
        env = {**os.environ, **self.env}
        if self.armed:
            env["ODRADEK_CRASH_AT"] = self.armed
        with self.log.open("ab") as log:
            log.write(f"--- start, armed {self.armed or 'with nothing'}\n".encode())
            log.flush()
            self._from = log.tell()
            self.child = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.log.parent,
                env=env,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    async def _say_ready(self) -> None:
        while READY not in self._said():
            await asyncio.sleep(0.05)
        self.ready.set()

    def _said(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read()

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_bytes()[-600:].decode(errors="replace")

    def partitions(self) -> tuple[int, ...]:
        """The partitions that it said to own, last."""
        for line in reversed(self._said().decode(errors="replace").splitlines()):
            _, found, listed = line.partition("owns partitions [")
            if found:
                return tuple(int(one) for one in listed.rstrip("]").split(",") if one.strip())
        return ()

    def kill(self) -> bool:
        """SIGKILL; False if it is not running."""
        pid = self.pid
        if pid is None:
            return False
        self._shot = True
        os.kill(pid, signal.SIGKILL)
        return True

    def cpu_s(self) -> float:
        """CPU seconds of the process that runs now (proc(5), fields 14 and 15)."""
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        return 0.0

    async def restart(self) -> None:
        """SIGTERM, and see it start again."""
        self.died.clear()
        self._told = True
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGTERM)
        await self.died.wait()

    async def stop(self) -> int | None:
        """SIGTERM, then SIGKILL; the exit code of an orderly end."""
        self.stopping = True
        self.cpu_at_end = self.cpu_s()
        code: int | None = None
        if (pid := self.pid) is not None and self.child is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
            with suppress(TimeoutError):
                code = await asyncio.wait_for(self.child.wait(), STOP_S)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        return code


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def odradek(*arguments: str) -> tuple[str, ...]:
    """A verb of the command line."""
    return (sys.executable, "-m", "odradek.infra.app.cli", *arguments)


class World:
    """All processes of a run over one broker.

    Args:
        folder: Logs, journal, checkpoints.
        bus: Where the topics are.
        model: Folder of the trainer's model.
        open_groups: Credit of the dispatcher.
        rows_per_step: Of the trainer.
        wrap: Makes another command of a process' command, for clocks that are wrong and planted
            faults.
        env: What processes are told besides.
        others: Processes beside, or in place of, the usual ones; () for none.
    """

    def __init__(
        self,
        folder: Path,
        bus: BusSettings,
        model: Path,
        *,
        open_groups: int,
        rows_per_step: int,
        wrap: Callable[[str, tuple[str, ...]], tuple[str, ...]] = lambda _, command: command,
        env: Mapping[str, str] | None = None,
        others: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.folder = folder
        self.bus = bus
        proxy_port, ports = free_port(), (free_port(), free_port())
        engine = ",".join(f"http://127.0.0.1:{port}" for port in ports)
        self.served = folder / "served.jsonl"
        self.seen = folder / "seen.jsonl"
        self.seen.touch()
        self._env = {
            "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
            "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
            "ODRADEK_TOPIC_PARTITIONS": str(bus.topic_partitions),
            "ODRADEK_TOKEN_KEYS": new_key(),
            "ODRADEK_PROXY_URL": f"http://127.0.0.1:{proxy_port}",
            "ODRADEK_PROXY_PORT": str(proxy_port),
            "ODRADEK_ENGINE_URL": engine,
            "ODRADEK_TRAINER_MODEL": str(model),
            "ODRADEK_TRAINER_OUTPUT_DIR": str(folder / "runs"),
            "ODRADEK_TRAINER_ROWS_PER_STEP": str(rows_per_step),
            "ODRADEK_TRAINER_MAX_STALENESS": "1000",
            "ODRADEK_TRAINER_MAX_STEPS": "100000",
            "ODRADEK_TRAINER_DEVICE": "cpu",
            "ODRADEK_DISPATCH_OPEN_GROUPS": str(open_groups),
            "ODRADEK_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
            "ODRADEK_TASK_TIMEOUTS": '{"call_s": 20, "attempt_s": 60, "seal_s": 30, "reward_s": 60}',
            "ODRADEK_AGENT_CONCURRENCY": str(RUNS_AT_ONCE),
            "CHAOS_SEEN": str(self.seen),
            SERVED: str(self.served),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": python_path(),
            **(env or {}),
        }
        self.processes: dict[str, Process] = {}
        self.ever: dict[str, Process] = {}
        """Those that have left, too."""
        self._wrap = wrap
        for number, port in enumerate(ports):
            name = f"engine-{number}"
            self.add(name, (sys.executable, "-m", "tests.chaos.processes.engine", str(port), name))
        for name, verb in (self._verbs() | dict(others or {})).items():
            if verb:
                self.add(name, self.command(name, verb))

    @staticmethod
    def _verbs() -> dict[str, tuple[str, ...]]:
        agent = ("agent", "tests.chaos.processes.agent:play", "--name", oracle.AGENT, "--instance")
        return {
            "proxy": ("proxy",),
            "intake": ("intake", "--instance", "intake"),
            "assembler-0": ("assemble", "--instance", "assembler-0"),
            "assembler-1": ("assemble", "--instance", "assembler-1"),
            "grouper": ("group", "--instance", "grouper"),
            "agent-0": (*agent, "agent-0"),
            "agent-1": (*agent, "agent-1"),
            "trainer": ("train",),
            "dispatcher": ("dispatch", "--instance", "dispatcher"),
        }

    def command(self, name: str, verb: tuple[str, ...]) -> tuple[str, ...]:
        """The command line of a process that runs a verb."""
        return self._wrap(name, odradek(*verb))

    def add(
        self, name: str, command: tuple[str, ...], env: Mapping[str, str] | None = None
    ) -> Process:
        """One more process, or another one in place of one of that name; not started."""
        made = Process(name, command, {**self._env, **(env or {})}, self.folder / f"{name}.log")
        self.processes[name] = self.ever[name] = made
        return made

    async def start(self) -> None:
        """Start all. Raises Broke if one does not get ready."""
        for process in self.processes.values():
            process.start()
        async with asyncio.timeout(120):
            for process in self.processes.values():
                armed = bool(process.armed or process.arms)
                while not (process.ready.is_set() or armed):
                    self.check()
                    await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raise Broke if a process ends again and again."""
        for process in self.processes.values():
            if process.failure is not None:
                raise process.failure

    async def stop(self) -> dict[str, int | None]:
        """End all in good order, readers last; exit codes by name."""
        names = [name for name in self.processes if not name.startswith("engine")]
        engines = [name for name in self.processes if name not in names]
        with suppress(TimeoutError):
            # One that is told to end before it hears signals ends by the signal.
            async with asyncio.timeout(STOP_S):
                for process in self.processes.values():
                    if process.failure is None:
                        await process.ready.wait()
        codes = await asyncio.gather(*(self.processes[name].stop() for name in names))
        # Others may be waiting for an answer.
        codes += await asyncio.gather(*(self.processes[name].stop() for name in engines))
        return dict(zip((*names, *engines), codes, strict=True))

    @property
    def loaded(self) -> bool:
        """Whether every engine serves the newest version that any of them had."""
        return len(set(engine_checks.newest(engine_checks.served(self.served)).values())) == 1

    @property
    def deaths(self) -> list[Death]:
        """Every kill so far, in order."""
        found = [death for process in self.ever.values() for death in process.deaths]
        return sorted(found, key=lambda death: death.at)
