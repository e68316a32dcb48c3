"""The supervisor keeps processes running and leaves none behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from odradek.infra.app.supervisor import (
    Backoff,
    ChildState,
    ProcessNotReady,
    ProcessRefused,
    Spec,
    Supervisor,
    UnknownProcess,
)
from tests.support.suite.process_state import alive

pytestmark = pytest.mark.processes

QUICK = Backoff(first_s=0.01, longest_s=0.05)
SLEEPER = "import sys, time; print('ready: x', flush=True); time.sleep(600)"


def spec(name: str, code: str, **more: object) -> Spec:
    return Spec(name=name, command=(sys.executable, "-c", code), **more)


async def until(condition, timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def test_waits_double_up_to_the_longest() -> None:
    """The wait before a restart doubles and then stays."""
    backoff = Backoff(first_s=1, factor=2, longest_s=5)

    assert [backoff.wait(n) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


async def test_starts_in_order_of_readiness(tmp_path: Path) -> None:
    """A process starts only once those it waits for have said that they are ready."""
    order = tmp_path / "order"
    note = f"open({str(order)!r}, 'a').write(%r); " + SLEEPER
    specs = [
        spec("b", note % "b", after=("a",)),
        spec("a", "import time; time.sleep(.1);" + note % "a"),
    ]

    async with Supervisor(specs, tmp_path) as supervisor:
        await supervisor.ready()

        assert order.read_text() == "ab"
        assert set(supervisor.states.values()) == {ChildState.READY}


async def test_restarts_what_was_killed_and_counts(tmp_path: Path) -> None:
    """A process killed by kill -9 comes back, and its restarts are counted."""
    async with Supervisor([spec("a", SLEEPER)], tmp_path, backoff=QUICK) as supervisor:
        await supervisor.ready()
        killed = supervisor.kill("a")
        await until(lambda: supervisor.restarts["a"] == 1)
        await until(lambda: supervisor.states["a"] is ChildState.READY)

        assert supervisor.children["a"].pid not in {None, killed}


async def test_code_two_at_the_start_is_not_restarted(tmp_path: Path) -> None:
    """A process that refuses its settings ends the start with its last line."""
    bad = spec("a", "import sys; print('noise'); print('set ODRADEK_X'); sys.exit(2)")

    async with Supervisor([bad], tmp_path, backoff=QUICK) as supervisor:
        with pytest.raises(ProcessRefused, match="a: set ODRADEK_X"):
            await supervisor.ready()

        assert supervisor.restarts == {"a": 0}


async def test_code_two_of_a_process_that_was_ready_once_is_restarted(tmp_path: Path) -> None:
    """Its settings are right: what it needs is away for a while, and is waited for."""
    code = (
        "import pathlib, sys, time\n"
        f"starts = pathlib.Path({str(tmp_path / 'starts')!r})\n"
        "n = len(starts.read_text()) if starts.exists() else 0\n"
        "starts.write_text('x' * (n + 1))\n"
        "if n in (1, 2): print('no Kafka answers'); sys.exit(2)\n"
        "print('ready: a', flush=True)\n"
        "if n == 0: time.sleep(0.5); sys.exit(2)\n"
        "time.sleep(60)\n"
    )
    async with Supervisor([spec("a", code)], tmp_path, backoff=QUICK) as supervisor:
        await supervisor.ready()
        await until(lambda: supervisor.restarts["a"] == 3)
        await until(lambda: supervisor.states["a"] is ChildState.READY)
        assert "xxxx" == (tmp_path / "starts").read_text()


async def test_a_process_that_never_gets_ready_is_told(tmp_path: Path) -> None:
    """Dying again and again at the start ends in one clear error."""
    words = "echo no engine at 127.0.0.1:9; exit 1"  # a shell, which has said it long before 1 s
    dying = Spec(name="a", command=("sh", "-c", words), ready_s=1.0)

    async with Supervisor([dying], tmp_path, backoff=QUICK) as supervisor:
        with pytest.raises(ProcessNotReady, match="no engine at"):
            await supervisor.ready()


async def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """A missing program ends the start."""
    absent = Spec(name="a", command=("/nonexistent/program",))

    async with Supervisor([absent], tmp_path) as supervisor:
        with pytest.raises(ProcessRefused, match="a cannot be started"):
            await supervisor.ready()


def test_waiting_for_an_unknown_process_is_refused(tmp_path: Path) -> None:
    """A dependency must name a process of the same supervisor."""
    with pytest.raises(UnknownProcess, match="'z'; there are a"):
        Supervisor([spec("a", SLEEPER, after=("z",))], tmp_path)


async def test_a_process_may_finish(tmp_path: Path) -> None:
    """Code 0 ends a process that is meant to end; it is not started again."""
    async with Supervisor([spec("a", "pass", finishes=True)], tmp_path) as supervisor:
        await supervisor.ready()

        assert supervisor.states["a"] is ChildState.FINISHED
        assert supervisor.restarts == {"a": 0}


async def test_stop_and_restart_by_hand(tmp_path: Path) -> None:
    """A stopped process stays down until it is asked for again."""
    async with Supervisor([spec("a", SLEEPER)], tmp_path, backoff=QUICK) as supervisor:
        await supervisor.ready()
        await supervisor.stop("a")
        assert supervisor.states["a"] is ChildState.STOPPED
        assert supervisor.children["a"].pid is None

        await supervisor.restart("a")
        assert supervisor.states["a"] is ChildState.READY
        assert supervisor.restarts == {"a": 0}


async def test_the_end_takes_grandchildren_and_the_deaf(tmp_path: Path) -> None:
    """Neither a grandchild nor a process that ignores SIGTERM is left behind."""
    pids = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('ready: a', flush=True)\n"
        "time.sleep(600)\n"
    )
    async with Supervisor([spec("a", code)], tmp_path, grace_s=0.2) as supervisor:
        await supervisor.ready()
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(alive(pid) for pid in found)

    await until(lambda: not any(alive(pid) for pid in found))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_children_die_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """A kill -9 of the supervisor takes its processes along."""
    program = tmp_path / "keep.py"
    program.write_text(
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from odradek.infra.app.supervisor import Spec, Supervisor\n"
        f"CODE = {SLEEPER!r}\n"
        "async def main():\n"
        "    spec = Spec(name='a', command=(sys.executable, '-c', CODE))\n"
        f"    async with Supervisor([spec], Path({str(tmp_path)!r})) as supervisor:\n"
        "        await supervisor.ready()\n"
        "        print(supervisor.children['a'].pid, flush=True)\n"
        "        await supervisor.wait()\n"
        "asyncio.run(main())\n"
    )
    keeper = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE)
    try:
        child = int(await asyncio.to_thread(keeper.stdout.readline))
        assert alive(child)
        os.kill(keeper.pid, signal.SIGKILL)
        await until(lambda: not alive(child))
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()
