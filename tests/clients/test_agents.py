"""Real coding agents, as a harness sets them up and as the docs say: their files, and the log."""

import os

import pytest

from odradek.agents.harnesses import HARNESSES
from odradek.schemas.sampling import Sampling, sampling_of
from tests.support.agents.clients_table import VERSIONS
from tests.support.agents.coding_agents import AGENTS, BIN, MADE, ROOT, Model, block
from tests.support.proxy.expected_tokens import held
from tests.support.proxy.proxy_bench import KEY

pytestmark = pytest.mark.clients
MANY = "qwen3-kimi-k2-minimax-m2-gemini-2.5-glm-4.6"
"""A model's name in which agents find those that they know."""


def sampled(turns):
    """In which ways turns were sampled."""
    recorded = [turn.request.sampling for turn in turns if turn.request.sampling]
    return {sampling_of(said) for said in recorded}


@pytest.mark.parametrize("name", AGENTS)
async def test_an_agent_is_the_pinned_release(name, shell, tmp_path):
    """What plays is what requirements/agents/package.json names."""
    agent = AGENTS[name]
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path)}
    if name == "mini-swe-agent":
        code = f"import importlib.metadata as m; print(m.version({agent.package!r}))"
        command = [agent.program.parent / "python", "-c", code]
    else:
        command = [agent.program, "--version"]
    assert VERSIONS[agent.package] in await shell(command, tmp_path, environment)


@pytest.mark.parametrize("stage", ["render", "bridge"], indirect=True)
@pytest.mark.parametrize("name", HARNESSES)
async def test_a_harness_plays_a_whole_task(name, stage, hosted, outside, tmp_path, row):
    """It writes a file through its tool, and asks nobody but the proxy.

    Where it prints the call anew, the next turn begins a sequence, unless ids are carried on.
    """
    agent = AGENTS[name]
    mode = stage.proxy.settings.continuation
    model = Model(agent, tmp_path / "odradek-*/work")
    episode = await hosted(name, model)
    assert ["né\n"] == model.made
    assert {agent.dialect} == {turn.dialect for turn in stage.turns()}
    broken = ["rewritten"] if agent.respells and mode == "render" else []
    assert broken == [entry.reason for entry in episode.breaks]
    assert (1 + len(broken), 0) == (len(episode.sequences), model.side)
    assert [] == outside, outside
    assert {Sampling(1.0)} == sampled(stage.turns())
    row(name, f"harness, {mode}", episode)


@pytest.mark.parametrize("name", HARNESSES)
async def test_no_models_name_bends_what_is_sampled(name, stage, hosted, tmp_path):
    """Some agents know models by parts of their names, and add a top_p or a top_k for them."""
    await hosted(name, Model(AGENTS[name], tmp_path / "odradek-*/work"), model=MANY)
    assert {MANY} == {call["model"] for call in stage.engine.calls}
    assert {Sampling(1.0)} == sampled(stage.turns())


@pytest.mark.parametrize("name", AGENTS)
async def test_the_docs_block_points_an_agent_at_the_proxy(
    name, stage, shell, outside, tmp_path, row
):
    """As it stands, in a shell that knows the keys and the proxy's address."""
    agent = AGENTS[name]
    work = tmp_path / "work"
    work.mkdir()
    stage.engine.script = Model(agent, work)
    path = (agent.program.parent, BIN, ROOT / ".venv" / "bin", "/usr/bin", "/bin")
    environment = {
        **{key: value for key, value in os.environ.items() if "proxy" in key.lower()},
        "PATH": os.pathsep.join(map(str, path)),
        "HOME": str(tmp_path),
        "ODRADEK_TOKEN_KEYS": KEY,
        "ODRADEK_PROXY_URL": stage.url,
    }
    await shell(["/bin/sh", "-euc", block(name)], work, environment)
    assert "né\n" == (work / MADE).read_text()
    episode = held(stage, "my-episode")
    assert {Sampling(1.0)} == sampled(stage.turns("my-episode"))
    row(name, "by hand", episode)
