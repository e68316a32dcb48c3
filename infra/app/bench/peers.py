"""Other proxies on the same payload, each in an environment of its own.

`scripts/prove peers` installs them below `.peers/`; nothing of them is a dependency. Each is
started as its own documentation says, with the mock engine behind it, and gets the same calls. At
the end it is killed with SIGKILL, and what it still has of the answered calls is counted.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from odradek.infra.app.bench.harness.load import CHAT, LoadTarget, LoadTest
from odradek.infra.app.bench.harness.processes import MeasuredProcess, pin
from odradek.infra.app.bench.harness.site import BenchSite, count, mock_engine, our_proxy
from odradek.infra.bus import delete_topics, ensure_topics
from odradek.infra.errors import ProjectError

FOLDER: Final = Path(".peers")
START_S: Final = 90.0
WARM_UP: Final = 50

_LIGHTNING_03: Final = """
import asyncio, sys
import agentlightning as agl
async def main():
    model = {"model_name": "policy", "litellm_params": {"model": "hosted_vllm/policy",
             "api_base": sys.argv[2] + "/v1", "api_key": "none"}}
    store = agl.InMemoryLightningStore(thread_safe=True)
    proxy = agl.LLMProxy(port=int(sys.argv[1]), host="127.0.0.1", model_list=[model], store=store,
                         launch_mode="thread",
                         callbacks=["return_token_ids", "opentelemetry", "logprobs"])
    await proxy.start()
    rollout = await store.start_rollout(input={})
    print("rollout", rollout.rollout_id, rollout.attempt.attempt_id, "end", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Peer(msgspec.Struct, frozen=True):
    """Another proxy."""

    name: str
    environment: str
    """Folder below `.peers`."""
    command: Callable[[Path, int, str, Path], list[str]]
    """From (environment's bin, port, engine's address, working folder)."""
    health: str
    keeps: str
    """Where it keeps what it captured, in words."""
    ready: Callable[[int, str, Path], str]
    """After start: makes it accept our calls; returns the path of a call."""
    survivors: Callable[[Path], int | None] = lambda _: 0
    """How many calls are left of it after SIGKILL; None where it captures none. What stands in
    memory alone is gone with its process, and is not counted."""
    calls: float = 1.0
    """Share of the calls that it gets, where it is too slow for all."""


def _rllm(store: str, *, synchronous: bool = False) -> Callable[[Path, int, str, Path], list[str]]:
    def command(bin_: Path, port: int, engine: str, folder: Path) -> list[str]:
        config = folder / "gateway.json"  # YAML reads JSON
        config.write_text(json.dumps({"sync_traces": synchronous, "db_path": str(folder / "db")}))
        return [
            str(bin_ / "python"), "-m", "rllm_model_gateway", "--host", "127.0.0.1",
            "--port", str(port), "--worker", f"{engine}/v1", "--store", store,
            "--config", str(config), "--log-level", "WARNING",
        ]  # fmt: skip

    return command


def _rows(folder: Path) -> int:
    with sqlite3.connect(folder / "db") as db:
        return int(db.execute("SELECT COUNT(*) FROM traces").fetchone()[0])


def _litellm(bin_: Path, port: int, engine: str, folder: Path) -> list[str]:
    config = folder / "litellm.json"
    parameters = {"model": "hosted_vllm/policy", "api_base": f"{engine}/v1", "api_key": "none"}
    config.write_text(
        json.dumps({"model_list": [{"model_name": "policy", "litellm_params": parameters}]})
    )
    return [
        str(bin_ / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip


def _lightning_1(bin_: Path, port: int, _: str, folder: Path) -> list[str]:
    return [
        str(bin_ / "agl-server"), "host=127.0.0.1", f"port={port}",
        "default_proxy.model_name=policy", f"hydra.run.dir={folder}",
    ]  # fmt: skip


def _register(port: int, engine: str, _: Path) -> str:
    server = {"model": "policy", "endpoint": f"{engine}/v1", "version": 0}
    _ask(port, "POST", "/api/models", [server])
    _ask(port, "POST", "/api/rollouts", [{"input": {}, "rollout_id": "bench"}])
    return "/proxy/rollout/bench/attempt/0/mode/train/openai/v1/chat/completions"


def _lightning_03(bin_: Path, port: int, engine: str, _: Path) -> list[str]:
    return [str(bin_ / "python"), "-c", _LIGHTNING_03, str(port), engine]


def _rollout(_: int, __: str, folder: Path) -> str:
    """The address of the attempt that the 0.3 proxy's process has started."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        for line in (folder / "log").read_text(errors="replace").splitlines():
            if line.startswith("rollout ") and line.endswith(" end"):
                _word, rollout, attempt, _end = line.split()
                return f"/rollout/{rollout}/attempt/{attempt}/v1/chat/completions"
        time.sleep(0.1)
    raise ProjectError("agentlightning 0.3 started no rollout")


def _fixed(path: str) -> Callable[[int, str, Path], str]:
    return lambda _port, _engine, _folder: path


_SESSION: Final = _fixed("/sessions/bench/v1/chat/completions")

PEERS: Final = (
    Peer("agent-lightning 1.0", "agentlightning-1.0", _lightning_1, "/healthz", "memory",
         _register),
    Peer("agent-lightning 0.3", "agentlightning-0.3", _lightning_03, "/health/liveliness",
         "memory", _rollout, calls=0.25),
    Peer("rllm-model-gateway 0.1, memory", "rllm", _rllm("memory"), "/health", "memory", _SESSION),
    Peer("rllm-model-gateway 0.1, sqlite", "rllm", _rllm("sqlite"), "/health", "sqlite",
         _SESSION, _rows),
    Peer("rllm-model-gateway 0.1, sqlite, synchronous", "rllm", _rllm("sqlite", synchronous=True),
         "/health", "sqlite", _SESSION, _rows),
    Peer("litellm proxy", "litellm", _litellm, "/health/liveliness", "nothing: no capture",
         _fixed("/v1/chat/completions"), lambda _: None, 0.25),
)  # fmt: skip


async def measure(place: BenchSite, repeats: int, calls: int) -> dict[str, Any]:
    """Ours and every installed peer, one at a time, in the same run."""
    console = Console(stderr=True)
    figures: dict[str, Any] = {"odradek": await _measure_proxy(place, repeats, calls)}
    for peer in PEERS:
        if not (FOLDER / peer.environment / ".whole").exists():
            console.print(f"{peer.name}: not installed; scripts/prove peers installs it")
            continue
        console.print(peer.name)
        figures[peer.name] = await _measure_peer(place, peer, repeats, calls)
    return figures


async def _measure_proxy(place: BenchSite, repeats: int, calls: int) -> dict[str, Any]:
    await ensure_topics(place.bus)
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(mock_engine(place, CHAT))
            target = stack.enter_context(our_proxy(place, engine.port))
            figures = await _figures(target, repeats, calls)
            _kill(target.process)
        survivors = target.answered - (await count(place.bus, target.answered))["lost"]
        return {**figures, "keeps": "Kafka, acknowledged", **_loss(target.answered, survivors)}
    finally:
        await delete_topics(place.bus)


async def _measure_peer(place: BenchSite, peer: Peer, repeats: int, calls: int) -> dict[str, Any]:
    folder = place.folder / peer.name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    with ExitStack() as stack:
        engine = stack.enter_context(mock_engine(place, CHAT))
        process, port = stack.enter_context(_started(peer, engine.port, folder, place.tested))
        await asyncio.to_thread(_healthy, process, port, peer.health)
        path = await asyncio.to_thread(peer.ready, port, f"http://127.0.0.1:{engine.port}", folder)
        target = LoadTarget(peer.name, process, port, lambda _: (path, ""))
        figures = await _figures(target, repeats, max(50, int(calls * peer.calls)))
        _kill(process)
        return {**figures, "keeps": peer.keeps, **_loss(target.answered, peer.survivors(folder))}


async def _figures(target: LoadTarget, repeats: int, calls: int) -> dict[str, Any]:
    load = LoadTest(CHAT, [target])
    await load.measure(target, 32, WARM_UP)
    before, answered = target.process.rss_kb(), target.answered
    await load.measure_all(repeats, calls, warm_up=WARM_UP)
    slope = (target.process.rss_kb() - before) / (target.answered - answered)
    return {**load.figures()[target.name], "rss_kb_per_call": round(slope, 3)}


def _loss(answered: int, survivors: int | None) -> dict[str, Any]:
    return {
        "answered": answered,
        "lost_on_kill": None if survivors is None else answered - survivors,
    }


def _kill(process: MeasuredProcess) -> None:
    os.kill(process.child.pid, signal.SIGKILL)
    process.child.wait()


@contextmanager
def _started(
    peer: Peer, engine_port: int, folder: Path, core: int | None
) -> Iterator[tuple[MeasuredProcess, int]]:
    """A peer's process on the core under test; ended when the block ends."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    bin_ = (FOLDER / peer.environment / "bin").absolute()
    command = peer.command(bin_, port, f"http://127.0.0.1:{engine_port}", folder)
    quiet = {"PATH": f"{bin_}:{os.environ['PATH']}", "HOME": str(folder), "NO_PROXY": "*",
             "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1",
             "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # fmt: skip
    with (folder / "log").open("wb") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=quiet, cwd=folder
        )
    pin(core, child.pid)
    try:
        yield MeasuredProcess(child, folder / "log"), port
    finally:
        child.kill()
        child.wait()


def _healthy(process: MeasuredProcess, port: int, path: str) -> None:
    """Wait until it answers. Raises ProjectError with its log if it never does."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.child.poll() is None:
        try:
            if _ask(port, "GET", path) == 200:
                return
        except OSError:
            time.sleep(0.2)
    log = process.log.read_text(errors="replace")[-800:]
    raise ProjectError(f"a peer did not start: {log}")


def _ask(port: int, method: str, path: str, body: Any = None) -> int:
    """The status of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()
