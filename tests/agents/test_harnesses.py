"""Harnesses: a coding agent is set up by one word, asks nobody but the proxy, and leaves nothing.

Programs that only write down what they were given stand for the agents here; `scripts/prove clients`
plays the real ones.
"""

import asyncio
import json
import os
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from odradek.agents import Rollout
from odradek.agents.attempt.outcome import RunnerEnded
from odradek.agents.errors import RunnerError
from odradek.agents.harnesses import HARNESSES, Model, prompt_of
from odradek.agents.rollout import RolloutTask
from odradek.agents.runners import HarnessRunner, load
from odradek.schemas.events import Outcome

ROOT = "http://127.0.0.1:1/e/e1"
FAKE = """\
#!{python}
import json, os, sys
from pathlib import Path
home = Path(os.environ["HOME"])
files = {{str(p.relative_to(home)): p.read_text() for p in home.rglob("*") if p.is_file()}}
seen = {{"arguments": sys.argv[1:], "variables": dict(os.environ), "cwd": os.getcwd(), "files": files,
        "stdin": sys.stdin.read(), "here": os.listdir(".")}}
with open({probe!r}, "a") as file:
    file.write(json.dumps(seen) + chr(10))
{more}
"""
QUIET = {
    "claude-code": {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER",
        "DISABLE_ERROR_REPORTING", "DISABLE_TELEMETRY",
    },
    "codex": set(),
    "opencode": {
        "OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_LSP_DOWNLOAD",
        "OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_DISABLE_SHARE",
    },
    "qwen-code": set(),
    "pi": {"PI_OFFLINE"},
    "gemini-cli": set(),
}  # fmt: skip
"""The variables that switch off what is not the task; some have settings in a file for it."""
every = pytest.mark.parametrize("name", HARNESSES)


def rollout(given="make a file", model="policy"):
    return Rollout(
        task=RolloutTask(task_id="t", agent="a", input=given),
        base_url=f"{ROOT}/v1",
        api_key="the-key",
        model=model,
        episode_id="e1",
        traceparent="00-1-2-01",
    )


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Runs a harness whose program writes down what it saw; gives that back."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()

    async def run(name, given="make a file", *, model="policy", more="", runs=1):
        probe = tmp_path / "probe"
        probe.unlink(missing_ok=True)
        program = tmp_path / "bin" / HARNESSES[name].program
        program.write_text(FAKE.format(python=sys.executable, probe=str(probe), more=more))
        program.chmod(0o755)
        runner = HarnessRunner(name)
        state = {"odradek.rollout": rollout(given, model)}
        context = SimpleNamespace(call_context=SimpleNamespace(state=state), task_id="e1")
        await asyncio.gather(*(runner.execute(context, None) for _ in range(runs)))
        assert () == state["odradek.rollout"].rewards
        seen = [json.loads(line) for line in probe.read_text().splitlines()]
        return seen if runs > 1 else seen[0]

    return run


@every
async def test_one_word_points_an_agent_at_the_proxy(play, name):
    """Its variables and files name the episode's address, key and model; the prompt is on stdin."""
    seen = await play(name, {"prompt": "--né: make a file", "answer": "s3cret"})
    assert "--né: make a file" == seen["stdin"]
    variables = seen["variables"]
    text = json.dumps([variables, seen["files"], seen["arguments"]])
    assert ROOT in text
    assert '"policy"' in text.replace("\\", "") or "policy" in seen["arguments"]
    assert "the-key" in variables.values()
    assert "s3cret" not in text
    # A key in a file would be read aloud by whatever lists the home.
    assert "the-key" not in json.dumps(seen["files"])


@every
async def test_each_run_has_a_home_that_goes_with_it(play, name):
    """Home, configuration, scratch and work are the run's own; the work folder is empty."""
    first, second = await play(name, runs=2)
    homes = [seen["variables"]["HOME"] for seen in (first, second)]
    assert 2 == len(set(homes))
    for seen in (first, second):
        assert [] == seen["here"]
        run = Path(seen["variables"]["HOME"]).parent
        for variable in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR"):
            assert Path(seen["variables"][variable]).is_relative_to(run)
        assert Path(seen["cwd"]).is_relative_to(run)
        assert not run.exists()


@every
async def test_an_agent_inherits_no_settings_of_its_own_kind(play, name, monkeypatch):
    """What the host's user has set for the same agent, and every provider's key, stays outside."""
    hidden = [f"{start}X" for start in HARNESSES[name].owns]
    hidden += ["ODRADEK_TOKEN_KEYS", "OPENAI_ORG_ID", "ANTHROPIC_X", "GEMINI_X", "GOOGLE_API_KEY"]
    for variable in hidden:
        monkeypatch.setenv(variable, "the host's")
    monkeypatch.setenv("MY_TOOLS", "wanted")
    seen = await play(name)
    assert "the host's" not in seen["variables"].values()
    assert "wanted" == seen["variables"]["MY_TOOLS"]


@every
async def test_the_model_of_an_agent_finds_neither_answers_nor_rewards(play, name):
    """It holds a shell: a task file or a reward file would be its to read and to write."""
    seen = await play(name)
    assert [] == [key for key in seen["variables"] if key.startswith("ODRADEK_")]
    assert "00-1-2-01" == seen["variables"]["TRACEPARENT"]


@every
async def test_telemetry_and_updates_are_off(play, name):
    """By variables, and by settings where the agent has no variable for it."""
    seen = await play(name)
    assert [] == [key for key in QUIET[name] if seen["variables"].get(key) != "1"]
    files = seen["files"]
    if name == "codex":
        config = tomllib.loads(files[".codex/config.toml"])
        assert not config["check_for_update_on_startup"]
        assert not config["analytics"]["enabled"]
        assert "disabled" == config["web_search"]
        # With either it asks three hosts of its makers for more to offer.
        assert {"apps": False, "plugins": False} == config["features"]
    if name == "opencode":
        config = json.loads(files[".config/opencode/opencode.json"])
        assert (False, "disabled") == (config["autoupdate"], config["share"])
        # Without this it fetches a package into each new home.
        lock = json.loads(files[".config/opencode/package-lock.json"])
        assert "@opencode-ai/plugin" in lock["packages"][""]["dependencies"]
    if name in {"qwen-code", "gemini-cli"}:
        settings = json.loads(files[f".{HARNESSES[name].program}/settings.json"])
        assert not settings["general"]["enableAutoUpdate"]
        assert not settings["privacy"]["usageStatisticsEnabled"]
        assert not settings["telemetry"]["enabled"]


async def test_agents_that_bend_the_distribution_are_set_straight(play):
    """Their own top_p and top_k would leave every reply untrained."""
    files = (await play("gemini-cli"))["files"]
    aliases = json.loads(files[".gemini/settings.json"])["modelConfigs"]["customAliases"]
    config = aliases["policy"]["modelConfig"]
    assert (False, 1) == (
        "extends" in aliases["policy"],
        config["generateContentConfig"]["temperature"],
    )
    assert {"topP", "topK"}.isdisjoint(config["generateContentConfig"])
    files = (await play("opencode"))["files"]
    agents = json.loads(files[".config/opencode/opencode.json"])["agent"]
    assert {1} == {settings["top_p"] for settings in agents.values()}


@every
@pytest.mark.parametrize("model", ["org/model-7b", 'a "quoted" \\ name', "né 🦎"])
def test_any_model_name_survives_the_files(name, model, tmp_path):
    """Files stay readable, and name the model as it is called."""
    setup = HARNESSES[name].prepare(Model(root=ROOT, key="k", name=model), tmp_path)
    texts = [*setup.arguments, *setup.variables.values()]
    for path, text in setup.files.items():
        if path.endswith(".json"):
            texts += leaves(json.loads(text))
        if path.endswith(".toml"):
            texts += leaves(tomllib.loads(text))
    assert [] != [text for text in texts if text.removeprefix("odradek/") == model]
    assert [] == [path for path in setup.files if Path(path).is_absolute() or ".." in path]


def leaves(value):
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in [key, *leaves(inner)]]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [str(value)]


@every
async def test_a_long_prompt_is_no_argument(play, name):
    """A task of half a megabyte would not fit into one word of a command line."""
    seen = await play(name, "x" * 500_000)
    assert 500_000 == len(seen["stdin"])


async def test_what_a_failed_agent_printed_is_the_reason(play):
    """Some tell of errors on stdout; both count."""
    with pytest.raises(RunnerEnded) as failed:
        await play("pi", more="print('out of credit', flush=True); sys.exit('no idea')")
    assert Outcome.FAILED == failed.value.verdict.outcome
    assert "exit code 1: out of credit\nno idea" == failed.value.verdict.error


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("make it", "make it"),
        ({"prompt": "make it", "answer": 3}, "make it"),
        ({"prompt": {"say": "né"}}, '{"say":"né"}'),
        ({"question": "né?"}, '{"question":"né?"}'),
        (["a", 1], '["a",1]'),
        (0, "0"),
        (False, "false"),
    ],
)
def test_a_tasks_input_becomes_the_prompt(given, prompt):
    """Text as it is, an object's prompt, anything else as JSON."""
    assert prompt == prompt_of(given)


@pytest.mark.parametrize("given", [None, "", " \n", {}, [], {"prompt": ""}, {"prompt": None}])
def test_an_input_without_a_prompt_is_an_error(given):
    """The run fails and says what a task needs."""
    with pytest.raises(RunnerError, match="'prompt'"):
        prompt_of(given)


@every
def test_a_program_that_is_not_installed_says_how(name, monkeypatch, tmp_path):
    """At the start of the host, with the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunnerError) as missing:
        load(None, None, name)
    assert HARNESSES[name].install in str(missing.value)
    assert repr(HARNESSES[name].program) in str(missing.value)


def test_an_unknown_harness_names_those_that_are():
    """In code as on the command line."""
    from odradek.infra.app.cli.run.agent import command

    with pytest.raises(RunnerError, match=r"claude-code, codex, opencode, qwen-code, pi"):
        HarnessRunner("emacs")
    answer = CliRunner().invoke(command, ["--harness", "emacs"])
    assert (2, True) == (answer.exit_code, "gemini-cli" in answer.output)


@pytest.mark.parametrize(
    "named",
    [(None, None, None), ("m:f", "python", None), (None, "python", "pi"), ("m:f", None, "pi")],
)
def test_an_agent_is_named_in_one_way(named):
    """A function, a command or a harness."""
    with pytest.raises(RunnerError, match="only one"):
        load(*named)
