"""Real coding agents, as a harness sets them up and as the docs say: their files, and the log."""

import asyncio
import os
import tempfile
from types import SimpleNamespace

import pytest
from clients_table import VERSIONS
from coding_agents import AGENTS, BIN, MADE, PROMPT, ROOT, Model, block
from held import held
from proxy_bench import KEY

from odradek.agents import Rollout
from odradek.agents.harnesses import HARNESSES
from odradek.agents.rollout import GivenTask
from odradek.agents.runners import HarnessRunner
from odradek.schemas.sampling import sampling_of

pytestmark = pytest.mark.clients
LIMIT_S = 100


@pytest.fixture
def hosted(stage, tmp_path, monkeypatch):
    """Runs a harness against the stage, with a model that knows where it works."""
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def run(name, script, given=PROMPT):
        stage.engine.script = script
        rollout = Rollout(
            task=GivenTask(task_id="t", agent="a", input={"prompt": given}),
            base_url=f"{stage.url}/e/e1/v1",
            api_key=stage.token(),
            model="policy",
            episode_id="e1",
        )
        state = {"odradek.rollout": rollout}
        context = SimpleNamespace(call_context=SimpleNamespace(state=state), task_id="e1")
        await asyncio.wait_for(HarnessRunner(name).execute(context, None), LIMIT_S)
        return held(stage)

    return run


def story(bench, episode, name="e1"):
    """What the table says of an episode."""
    turns = bench.turns(name)
    sampled = {}
    for turn in turns:
        sampled = turn.request.sampling or sampled
    drawn = sampling_of(sampled)
    return {
        "turns": len(turns),
        "sequences": len(episode.sequences),
        "breaks": sorted(broken.reason for broken in episode.breaks),
        "temperature": drawn.temperature,
        "bent": drawn.bent,
    }


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
    row({"agent": name, "way": f"harness, {mode}", **story(stage, episode)})


@pytest.mark.parametrize("name", AGENTS)
async def test_the_docs_block_points_an_agent_at_the_proxy(
    name, stage, shell, outside, tmp_path, row
):
    """As it stands, in a shell that knows the keys and the proxy's address."""
    agent = AGENTS[name]
    work = tmp_path / "work"
    work.mkdir()
    stage.engine.script = model = Model(agent, work)
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
    row(
        {"agent": name, "way": "by hand", "side": model.side, **story(stage, episode, "my-episode")}
    )
