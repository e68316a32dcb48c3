"""Real clients as programs of their own, before a proxy over a stub engine.

`scripts/prove clients` makes the environments of those that are not for the developers' own.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from odradek.agents import Rollout
from odradek.agents.rollout import RolloutTask
from odradek.agents.runners import HarnessRunner
from odradek.infra.bus import MemoryAppender
from odradek.proxy.app import Proxy
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from tests.support.agents import clients_table
from tests.support.agents.coding_agents import BIN, PROMPT
from tests.support.engines.stub_engine import StubEngine, listening
from tests.support.proxy.expected_tokens import held
from tests.support.proxy.proxy_bench import KEY, Bench

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
SCRATCH = ROOT / ".venv-clients" / "bin"
LIMIT_S = 110
ROWS = []


@pytest.fixture
async def stage(request):
    """A proxy over a log in memory, before the stub engine: the bench of both.

    Its parameter is the proxy's `continuation`.
    """
    continuation = getattr(request, "param", "render")
    engine = StubEngine()
    async with listening(engine.app()) as url:
        engine.url = url
        settings = ProxySettings(port=0, engine_url=url, continuation=continuation)
        proxy = Proxy(settings, MemoryAppender(), keys=[KEY])
        async with serving(proxy, shutdown_s=0.1) as address:
            yield Bench(engine, proxy.turn_writer._appender, proxy, address)


@pytest.fixture
async def play(stage, tmp_path):
    """Runs a program against the engine itself, or through the proxy.

    Gives what it printed as JSON, the bench with the log, and what else it said.
    """
    engine = stage.engine

    async def run(command, script, *, direct=False, cwd=tmp_path, **more):
        engine.calls.clear()
        engine.script = script
        root = engine.url if direct else f"{stage.url}/e/e1"
        key = "any" if direct else stage.token()
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
            "OPENAI_BASE_URL": f"{root}/v1", "OPENAI_API_BASE": f"{root}/v1",
            "OPENAI_API_KEY": key, "ANTHROPIC_BASE_URL": root, "ANTHROPIC_API_KEY": key,
            "GOOGLE_GEMINI_BASE_URL": root, "GEMINI_API_KEY": key,
            "ANTHROPIC_AUTH_TOKEN": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", **more,
        }  # fmt: skip
        if direct:
            environment["ODRADEK_DIRECT"] = "1"
        text = await output(command, cwd, environment)
        last = text.strip().splitlines()[-1] if text.strip() else "null"
        said = json.loads(last) if last.startswith(("[", "{", "null")) else None
        return SimpleNamespace(said=said, out=text)

    run.bench, run.engine = stage, engine
    return run


async def output(command, cwd, environment):
    """What a program prints, once it has ended well; its group is killed if it does not end."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, env=environment, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    text = out.decode()
    assert process.returncode == 0, text[-3000:]
    return text


@pytest.fixture
def shell():
    """Runs a program to its end; see `output`."""
    return output


@pytest.fixture
def program():
    """The command of a program, in its environment."""

    def command(name, *, scratch=True):
        if not scratch:
            return [sys.executable, PROGRAMS / f"{name}.py"]
        assert SCRATCH.exists(), "scripts/prove clients makes the environment of this client"
        return [SCRATCH / "python", PROGRAMS / f"{name}.py"]

    return command


@pytest.fixture
def hosted(stage, tmp_path, monkeypatch):
    """Runs a harness against the stage, with a model that knows where it works."""
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def run(name, script, *, model="policy"):
        stage.engine.script = script
        rollout = Rollout(
            task=RolloutTask(task_id="t", agent="a", input={"prompt": PROMPT}),
            base_url=f"{stage.url}/e/e1/v1",
            api_key=stage.token(),
            model=model,
            episode_id="e1",
        )
        state = {"odradek.rollout": rollout}
        context = SimpleNamespace(call_context=SimpleNamespace(state=state), task_id="e1")
        await asyncio.wait_for(HarnessRunner(name).execute(context, None), LIMIT_S)
        return held(stage)

    return run


@pytest.fixture
async def outside(monkeypatch):
    """An HTTP proxy that lets nobody out; gives the hosts that were asked for."""
    asked = []

    async def refuse(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.append((await reader.readline()).decode().strip())
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, address)
        monkeypatch.setenv(name.lower(), address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    yield asked
    server.close()


@pytest.fixture
def row(stage):
    """Takes down a row of the table that `scripts/prove clients --write` puts into the docs."""

    def take(agent, way, episode):
        ROWS.append(clients_table.row(agent, way, episode, stage.turns(episode.episode_id)))

    return take


def pytest_sessionfinish(exitstatus):
    """Write the table, where all of it was played and holds."""
    if exitstatus == 0 and os.environ.get("ODRADEK_CLIENTS_WRITE"):
        clients_table.write(ROWS)
