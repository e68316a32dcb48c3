"""The page on agents: its examples load, and its tables hold what the code has."""

import inspect
import re
from pathlib import Path

import pytest
from a2a.server.agent_execution import AgentExecutor

from odradek.agents import Rollout
from odradek.agents.harnesses import HARNESSES
from odradek.agents.rollout import RolloutTask
from odradek.agents.runners import program
from odradek.agents.runners.load import as_executor
from odradek.schemas.events import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "write-an-agent.md").read_text()


def test_the_examples_are_agents():
    """Each Python block is something that `odradek agent` takes."""
    pytest.importorskip("openai")
    function, executor, foreign = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for code, name in ((function, "play"), (executor, "Executor"), (foreign, "Larger")):
        space: dict[str, object] = {}
        exec(compile(code, name, "exec"), space)
        assert isinstance(as_executor(space[name], name), AgentExecutor)


def test_every_variable_of_programs_stands_in_the_page(tmp_path):
    """What a program is given is documented."""
    rollout = Rollout(
        task=RolloutTask(), base_url="u", api_key="k", model="m", episode_id="e", traceparent="t"
    )
    given = program.ProgramRunner("true").launch(rollout, tmp_path).variables
    assert [] == [name for name in given if name != "TMPDIR" and f"`{name}`" not in PAGE]


@pytest.mark.parametrize("name", HARNESSES)
def test_every_harness_stands_in_the_page(name):
    """With the command that hosts it, and the one that installs it."""
    assert f"--harness {name}" in PAGE
    assert HARNESSES[name].install in PAGE


def test_every_outcome_and_every_public_name_of_a_rollout_stands_in_the_page():
    """The tables are complete."""
    assert [] == [outcome for outcome in Outcome if f"`{outcome}`" not in PAGE]
    names = [name for name, _ in inspect.getmembers(Rollout) if not name.startswith("_")]
    assert [] == [name for name in names if name not in PAGE]
