"""Real clients as programs of their own, before a proxy over a stub engine.

`scripts/clients` makes the environment of those that are not for the developers' own.
"""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from proxy_bench import KEY, Bench
from stub_engine import StubEngine, listening

from odradek.infra.bus import MemoryAppender
from odradek.proxy.app import Proxy, serving
from odradek.proxy.settings import ProxySettings

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
SCRATCH = ROOT / ".venv-clients" / "bin"
LIMIT_S = 110


@pytest.fixture
async def play(tmp_path):
    """Runs a program against the engine itself, or through the proxy.

    Gives what it printed as JSON, the bench with the log, and what else it said.
    """
    engine = StubEngine()
    async with listening(engine.app()) as url:
        engine.url = url
        settings = ProxySettings(port=0, shutdown_s=0.1, engine_url=url)
        proxy = Proxy(settings, MemoryAppender(), keys=[KEY])
        async with serving(proxy) as address:
            bench = Bench(engine, proxy.recorder._appender, proxy, address)

            async def run(command, script, *, direct=False, cwd=tmp_path, **more):
                engine.calls.clear()
                engine.script = script
                root = url if direct else f"{address}/e/e1"
                key = "any" if direct else bench.token()
                environment = {
                    "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
                    "OPENAI_BASE_URL": f"{root}/v1", "OPENAI_API_BASE": f"{root}/v1",
                    "OPENAI_API_KEY": key, "ANTHROPIC_BASE_URL": root, "ANTHROPIC_API_KEY": key,
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True", **more,
                }  # fmt: skip
                if direct:
                    environment["ODRADEK_DIRECT"] = "1"
                process = await asyncio.create_subprocess_exec(
                    *map(str, command), cwd=cwd, env=environment, start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                )  # fmt: skip
                try:
                    out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
                except TimeoutError:
                    process.kill()
                    raise
                text = out.decode()
                assert process.returncode == 0, text[-3000:]
                last = text.strip().splitlines()[-1] if text.strip() else "null"
                said = json.loads(last) if last.startswith(("[", "{", "null")) else None
                return SimpleNamespace(said=said, out=text)

            run.bench, run.engine = bench, engine
            yield run


@pytest.fixture
def program():
    """The command of a program, in its environment; skipped where that was not made."""

    def command(name, *, scratch=True):
        if not scratch:
            return [sys.executable, PROGRAMS / f"{name}.py"]
        if not SCRATCH.exists():
            pytest.skip("scripts/clients makes the environment of this client")
        return [SCRATCH / "python", PROGRAMS / f"{name}.py"]

    return command
