"""A broker that outlives the command which started it: `odradek kafka start`, `stop`, `status`.

One folder holds its data, its log and `state.json`, which says which process it is. A process id
may be reused by the system, so before anything is done to it the process' own command line must
name our folder.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from odradek.infra.app.local_kafka.broker import READY_S, STOP_S
from odradek.infra.app.local_kafka.errors import BrokerSilent, NoDisk, NotOurBroker, PortInUse
from odradek.infra.app.local_kafka.jars import Progress, cache_dir
from odradek.infra.app.local_kafka.server import (
    BrokerPlace,
    answers,
    choose,
    environment,
    mark,
    prepare,
    wait_until_ready,
)

PORT: Final = 9092
"""The port of a broker that nobody chose one for."""


class BrokerStatus(Struct, frozen=True):
    """The state of a folder's broker."""

    running: bool
    ready: bool
    """Whether it answers a metadata request."""
    folder: str
    bootstrap_servers: str = ""
    pid: int = 0


class DaemonState(Struct, frozen=True):
    """What `state.json` holds."""

    pid: int
    port: int
    controller_port: int


def default_folder() -> Path:
    """`.odradek/kafka` of the current folder where that is a project, else of the user's cache."""
    current = Path.cwd()
    if (current / "odradek.toml").exists() or (current / ".odradek").is_dir():
        return current / ".odradek" / "kafka"
    return cache_dir() / "kafka"


def start(
    folder: Path,
    *,
    port: int = 0,
    overrides: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    timeout_s: float = READY_S,
) -> BrokerStatus:
    """Start the folder's broker unless it runs, and return once it answers.

    Args:
        folder: Holds data, log and state; the data stays when the broker stops.
        port: 0 takes the port of the last time, else 9092.
        overrides: Lines of server.properties that win over ours.
        progress: Called after each jar that is fetched.
        timeout_s: How long to wait for the first answer.

    Raises errors of `odradek.infra.app.local_kafka.errors`; a broker that did not come up is ended.
    """
    folder = _real(folder)
    with _locked(folder):
        state = _read(folder)
        if state is not None and _is_ours(state.pid, folder):
            server = _server(folder, state)
            if port and port != state.port:
                raise PortInUse(
                    f"the broker of {folder} runs on port {state.port} already: "
                    "`odradek kafka stop` first"
                )
            wait_until_ready(server, lambda: _is_ours(state.pid, folder), timeout_s)
            return status(folder)
        server = choose(folder, port or (state.port if state else PORT))
        pid = _launch(prepare(server, overrides or {}, progress), server)
        with ExitStack() as failed:
            failed.callback(_kill, pid, folder)  # at ctrl-C as well: no broker stays behind
            # Written before the wait: dying here leaves a broker which `stop` can find.
            _write(folder, DaemonState(pid, server.port, server.controller_port))
            wait_until_ready(server, lambda: _is_ours(pid, folder), timeout_s)
            failed.pop_all()
        return status(folder)


def stop(folder: Path, *, timeout_s: float = STOP_S) -> bool:
    """End the folder's broker; its data stays. False where none was running.

    Raises:
        NotOurBroker: The state file names a process which is not the broker of this folder.
        BrokerSilent: It did not even end on SIGKILL.
    """
    folder = _real(folder)
    if not folder.is_dir():
        return False
    with _locked(folder):
        state = _read(folder)
        if state is None or not _command_line(state.pid):
            return False
        if not _is_ours(state.pid, folder):
            raise NotOurBroker(
                f"process {state.pid} is not the broker of {folder}: it was left alone; "
                f"remove {_state_file(folder)} if the broker is gone"
            )
        with suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
        if not _ends_within(state.pid, folder, timeout_s):
            _kill(state.pid, folder)
            if not _ends_within(state.pid, folder, timeout_s):
                raise BrokerSilent(f"process {state.pid} does not end")
        return True


def status(folder: Path) -> BrokerStatus:
    """Whether the folder's broker runs and answers."""
    folder = _real(folder)
    state = _read(folder)
    if state is None or not _is_ours(state.pid, folder):
        return BrokerStatus(running=False, ready=False, folder=str(folder))
    return BrokerStatus(
        running=True,
        ready=answers(state.port),
        folder=str(folder),
        bootstrap_servers=_server(folder, state).bootstrap_servers,
        pid=state.pid,
    )


def _real(folder: Path) -> Path:
    """A folder's name without links: the folder's server is recognized by it."""
    return Path(os.path.realpath(folder))


def _server(folder: Path, state: DaemonState) -> BrokerPlace:
    return BrokerPlace(folder, state.port, state.controller_port)


def _launch(command: list[str], server: BrokerPlace) -> int:
    """Start the command in a session of its own, as nobody's child, and return its process id."""
    script = '"$@" </dev/null >"$LOG" 2>&1 & echo $!'
    shell = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**environment(), "LOG": server.log.name},
        cwd=server.folder,
        start_new_session=True,
        check=True,
    )
    return int(shell.stdout)


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether a process lives and is the Kafka of this folder; a zombie has no command line."""
    command = _command_line(pid)
    return {"kafka.Kafka", mark(folder)} <= set(command.split())


def _command_line(pid: int) -> str:
    """A process' command line; empty once it has ended, also while nobody has reaped it."""
    if Path("/proc/self/cmdline").exists():
        return _from_proc(Path("/proc") / str(pid))
    ps = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return ps.stdout


def _from_proc(process: Path) -> str:
    # In the midst of exec a living process shows no command line for a moment: look again.
    for _ in range(20):
        try:
            command = (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""
        if command or state in {"Z", "X"}:
            return command.replace(b"\0", b" ").decode(errors="replace")
        time.sleep(0.01)
    return ""


def _ends_within(pid: int, folder: Path, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while _is_ours(pid, folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _kill(pid: int, folder: Path) -> None:
    if _is_ours(pid, folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _state_file(folder: Path) -> Path:
    return folder / "state.json"


def _read(folder: Path) -> DaemonState | None:
    try:
        return msgspec.json.decode(_state_file(folder).read_bytes(), type=DaemonState)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(folder: Path, state: DaemonState) -> None:
    temporary = _state_file(folder).with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(state))
    temporary.replace(_state_file(folder))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One start or stop of a folder at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise NoDisk(f"cannot use {folder}: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
