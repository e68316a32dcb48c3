"""The docs' block for each coding agent, run as it stands.

A program that writes down what it was given stands in the agent's place here; `scripts/prove clients` runs
the same blocks with the real ones.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from odradek.infra.runtime import episode_tokens
from tests.support.agents.clients_table import BEGIN, END, FIGURES, PAGE, VERSIONS, table
from tests.support.agents.coding_agents import AGENTS, PROMPT, block

pytestmark = pytest.mark.processes

KEYS = "k" * 32
PROXY = "http://127.0.0.1:9"
FAKE = """\
#!{python}
import json, os, sys
from pathlib import Path
files = [p.read_text() for p in Path(os.environ["HOME"]).rglob("*") if p.is_file()]
seen = {{"arguments": sys.argv[1:], "variables": dict(os.environ), "files": files}}
Path({probe!r}).write_text(json.dumps(seen))
"""
ADDRESS = {"messages": "/e/my-episode", "gemini": "/e/my-episode"}


@pytest.mark.parametrize("name", AGENTS)
def test_a_block_points_the_agent_at_the_proxy(name: str, tmp_path: Path) -> None:
    """It reaches the program with the episode's address, a key that opens it, and the prompt."""
    agent, folder, probe = AGENTS[name], tmp_path / "bin", tmp_path / "probe"
    folder.mkdir()
    program = folder / agent.program.name
    program.write_text(FAKE.format(python=sys.executable, probe=str(probe)))
    program.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    environment = {
        "PATH": path,
        "HOME": str(home),
        "ODRADEK_TOKEN_KEYS": KEYS,
        "ODRADEK_PROXY_URL": PROXY,
    }

    done = subprocess.run(
        ["/bin/sh", "-euc", block(name)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert (0, "") == (done.returncode, done.stderr)
    seen = json.loads(probe.read_text())
    assert PROMPT in seen["arguments"]
    key = seen["variables"]["OPENAI_API_KEY"]
    assert "my-episode" == episode_tokens.read(key, [KEYS]).sub
    address = PROXY + ADDRESS.get(agent.dialect, "/e/my-episode/v1")
    places = [*seen["arguments"], *seen["variables"].values(), *seen["files"]]
    assert [] != [text for text in places if re.search(rf"{address}(?![\w/])", text)]


def test_the_table_is_what_was_played() -> None:
    """`scripts/prove clients --write` brings page and figures up to date, with the versions it played."""
    figures = json.loads(FIGURES.read_text())
    _, _, rest = PAGE.read_text().partition(BEGIN)
    assert table(figures) == rest.partition(END)[0]
    played = {row["agent"]: row["version"] for row in figures["agents"]}
    assert {name: VERSIONS[agent.package] for name, agent in AGENTS.items()} == played


def test_the_agents_versions_stand_in_one_file() -> None:
    """Those of PyPI are locked in requirement files as that file has them, those of npm in its lock."""
    requirements = Path(__file__).parents[2] / "requirements"
    text = "".join((requirements / name).read_text() for name in ("aider.txt", "clients.txt"))
    pins = dict(re.findall(r"^([\w-]+)==(\S+) \\$", text, flags=re.MULTILINE))
    lock = json.loads((requirements / "agents" / "package-lock.json").read_text())
    pins |= {
        place.removeprefix("node_modules/"): package["version"]
        for place, package in lock["packages"].items()
        if place
    }
    assert VERSIONS == {name: pins[name] for name in VERSIONS}
    assert {agent.package for agent in AGENTS.values()} <= set(VERSIONS)
    # Each is hashed, and names no registry.
    assert [] == [p for place, p in lock["packages"].items() if place and "integrity" not in p]
    assert [] == [p for p in lock["packages"].values() if "resolved" in p]
