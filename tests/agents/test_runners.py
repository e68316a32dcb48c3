"""Functions, programs and A2A executors: each is an agent, and each leaves nothing behind."""

import asyncio
import json
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from odradek.agents import Rollout, UpstreamUnavailable
from odradek.agents.attempt.executor import _value
from odradek.agents.attempt.outcome import RunnerEnded, judge
from odradek.agents.errors import RunnerError
from odradek.agents.rollout import RolloutTask
from odradek.agents.runners import FunctionRunner, ProgramRunner, load, rollout_of
from odradek.infra.errors import NoSuchName
from odradek.schemas.events import Outcome
from tests.support.schemas.number_inputs import NO_NUMBERS, NOT_FINITE, NUMBERS, shown
from tests.support.suite.process_state import alive


def rollout(given=None):
    return Rollout(
        task=RolloutTask(task_id="t", agent="a", input=given),
        base_url="http://127.0.0.1:1/e/e1/v1",
        api_key="key",
        model="m",
        episode_id="e1",
        traceparent="00-1-2-01",
    )


def context(found):
    return SimpleNamespace(
        call_context=SimpleNamespace(state={"odradek.rollout": found}), task_id="e1"
    )


async def play(program, tmp_path, given=None, arguments="{task_file}"):
    path = tmp_path / "agent.py"
    path.write_text(textwrap.dedent(program))
    found = rollout(given)
    await ProgramRunner(f"{sys.executable} {path} {arguments}").execute(context(found), None)
    return found


def values(found):
    return {given.component: given.value for given in found.rewards}


async def test_a_program_finds_its_task_and_its_model(tmp_path, monkeypatch):
    """By the variables that model clients know, the task's file, and a folder of its own."""
    monkeypatch.setenv("ODRADEK_TOKEN_KEYS", "secret" * 10)
    for name in (
        "OPENAI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "ANTHROPIC_X",
        "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "OPENAI_ORG_ID",
    ):  # fmt: skip
        monkeypatch.setenv(name, "the host's")
    found = await play(
        """
        import json, os, sys
        task = json.load(open(sys.argv[1]))
        told = {k: v for k, v in os.environ.items() if k.startswith(("ODR", "OPENAI", "ANTHR", "GEM", "GOO", "CLAUDE", "TRACE"))}
        json.dump({"task": task, "told": told, "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid()},
                  open(os.environ["PROBE"], "w"))
        open("reward.json", "w").write('{"game": 1, "format": 0.5}')
        """.replace('os.environ["PROBE"]', repr(str(tmp_path / "probe.json"))),
        tmp_path,
        {"secret": 3},
    )
    probe = json.loads((tmp_path / "probe.json").read_text())
    assert {"secret": 3} == probe["task"]
    assert probe["session"]
    told = probe["told"]
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY"):
        assert "key" == told[name]
    assert "http://127.0.0.1:1/e/e1/v1" == told["OPENAI_BASE_URL"] == told["OPENAI_API_BASE"]
    assert "http://127.0.0.1:1/e/e1" == told["ANTHROPIC_BASE_URL"] == told["GOOGLE_GEMINI_BASE_URL"]
    for name in ("OPENAI_MODEL", "ANTHROPIC_MODEL", "GEMINI_MODEL", "ODRADEK_MODEL"):
        assert "m" == told[name]
    assert "the host's" not in told.values()
    assert ("e1", "00-1-2-01") == (told["ODRADEK_EPISODE_ID"], told["TRACEPARENT"])
    assert "ODRADEK_TOKEN_KEYS" not in told
    assert {"game": 1.0, "format": 0.5} == values(found)
    assert not Path(probe["cwd"]).exists()


async def test_exit_codes_say_whose_doing_the_end_was(tmp_path):
    """0 is completed, 75 (EX_TEMPFAIL) an unreachable model, anything else failed."""
    with pytest.raises(RunnerEnded) as failed:
        await play("import sys; sys.exit('no idea')", tmp_path)
    assert (Outcome.FAILED, "exit code 1: no idea") == (
        failed.value.verdict.outcome,
        failed.value.verdict.error,
    )
    with pytest.raises(RunnerEnded) as upstream:
        await play("import sys; sys.exit(75)", tmp_path)
    assert Outcome.UPSTREAM_FAILED == upstream.value.verdict.outcome


async def test_a_broken_reward_file_is_no_number(tmp_path):
    """What cannot be read raises when it is asked for its value."""
    found = await play(
        "open('reward.json', 'w').write('{\"game\": \"high\", \"ok\": 1}')", tmp_path
    )
    given = values(found)
    assert 1.0 == given["ok"]
    with pytest.raises(ValueError, match="not a number"):
        given["game"]()


async def test_the_whole_process_group_is_killed(tmp_path):
    """At the deadline a program goes with its children and grandchildren, and its folder."""
    pids, cwd = tmp_path / "pids", tmp_path / "cwd"
    program = f"""
        import os, subprocess, sys, time
        open({str(cwd)!r}, "w").write(os.getcwd())
        inner = "import os, time; open({str(pids)!r}, 'a').write(str(os.getpid()) + chr(10)); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", inner])
        subprocess.run([sys.executable, "-c", inner])
    """
    running = asyncio.create_task(play(program, tmp_path))
    async with asyncio.timeout(60):
        while not pids.exists() or len(pids.read_text().split()) < 2:
            await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(60):
        while any(alive(int(pid)) for pid in pids.read_text().split()):
            await asyncio.sleep(0.02)
    assert not Path(cwd.read_text()).exists()


async def test_what_a_program_leaves_running_is_killed_when_it_ends(tmp_path):
    """A daemon that a program started does not outlive its episode."""
    pids = tmp_path / "pids"
    await play(
        f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open({str(pids)!r}, "w").write(str(child.pid))
        """,
        tmp_path,
    )
    async with asyncio.timeout(60):
        while alive(int(pids.read_text())):
            await asyncio.sleep(0.02)


async def test_commands_that_cannot_start_are_told_at_once(tmp_path, monkeypatch):
    """A missing program is a mistake of the person, not of an episode."""
    for command in ("", "no-such-program-here x", 'python "'):
        with pytest.raises(RunnerError):
            ProgramRunner(command)


async def test_words_that_name_files_here_are_found_from_the_working_folder(tmp_path, monkeypatch):
    """`python solve.py {task_file}` works from the project's folder."""
    (tmp_path / "solve.py").write_text("open('reward.json', 'w').write('{\"game\": 2}')")
    monkeypatch.chdir(tmp_path)
    found = rollout()
    await ProgramRunner(f"{sys.executable} solve.py {{task_file}}").execute(context(found), None)
    assert {"game": 2.0} == values(found)


async def test_a_function_is_an_agent():
    """It gets the rollout; what it raises passes."""
    seen = []

    async def good(given):
        seen.append(given.episode_id)

    async def bad(given):
        raise KeyError

    await FunctionRunner(good).execute(context(rollout()), None)
    assert ["e1"] == seen
    with pytest.raises(KeyError):
        await FunctionRunner(bad).execute(context(rollout()), None)


def test_agents_are_found_by_name(tmp_path, monkeypatch):
    """A function, a class of executors, a program; mistakes name the nearest thing."""
    (tmp_path / "some_agent_module.py").write_text(
        "async def play(rollout): ...\ndef wrong(rollout): ...\n"
        "from a2a.server.agent_execution import AgentExecutor\n"
        "class Executor(AgentExecutor):\n"
        "    async def execute(self, context, queue): ...\n"
        "    async def cancel(self, context, queue): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "FunctionRunner" == type(load("some_agent_module:play", None)).__name__
    assert "Executor" == type(load("some_agent_module:Executor", None)).__name__
    assert "ProgramRunner" == type(load(None, "python -V")).__name__
    for target, told in {
        "some_agent_module:plya": "did you mean 'play'",
        "some_agent_module:wrong": "neither an async function",
        "no_such_module_here:play": "no module",
        "some_agent_module": "module:function",
    }.items():
        with pytest.raises((RunnerError, NoSuchName), match=told):
            load(target, None)


def test_rewards_are_numbers_or_functions():
    """The first of a component wins; what is no finite number is refused at once."""
    found = rollout()
    found.reward("game", 1)
    found.reward("game", 2)
    found.reward("later", lambda: 3.0)
    assert 1.0 == values(found)["game"]
    assert 3.0 == values(found)["later"]()
    for value, error in ((float("nan"), ValueError), ("1", TypeError), (None, TypeError)):
        with pytest.raises(error):
            found.reward("x", value)


@pytest.mark.parametrize(("given", "value"), NUMBERS, ids=shown)
async def test_a_reward_may_be_any_librarys_number(given, value):
    """At once or when it is asked for: a solved game is no crash."""
    found = rollout()
    found.reward("now", given)
    found.reward("later", lambda: given)
    assert [value, value] == [await _value(one) for one in found.rewards]


@pytest.mark.parametrize("given", [*NO_NUMBERS, *NOT_FINITE], ids=shown)
async def test_a_reward_that_is_no_number_is_an_error_of_its_component(given):
    """Where it is given, or where it is asked for."""
    found = rollout()
    found.reward("later", lambda: given)
    with pytest.raises((TypeError, ValueError), match="reward 'later' is "):
        await _value(found.rewards[0])
    if not callable(given):
        with pytest.raises((TypeError, ValueError), match="reward 'now' is "):
            found.reward("now", given)


def test_only_an_unreachable_model_is_our_doing():
    """Model SDKs' connection errors and 5xx, however deep; other exceptions are the agent's."""
    unreached = type("APIConnectionError", (Exception,), {"__module__": "openai._exceptions"})
    derived = type("Mine", (unreached,), {})
    other = type("APIConnectionError", (Exception,), {"__module__": "elsewhere"})
    wrapped = RuntimeError()
    wrapped.__cause__ = unreached()
    for error in (
        unreached(),
        derived(),
        wrapped,
        UpstreamUnavailable(),
        ExceptionGroup("g", [ValueError(), unreached()]),
    ):
        assert Outcome.UPSTREAM_FAILED == judge(error).outcome
    for error in (other(), ValueError(), ExceptionGroup("g", [ValueError()])):
        assert Outcome.FAILED == judge(error).outcome


def test_the_names_of_the_model_sdks_errors_are_as_we_know_them():
    """The classes that are known by name exist in the SDK."""
    openai = pytest.importorskip("openai")
    from odradek.agents.attempt.outcome import UNREACHED

    for name in UNREACHED:
        assert issubclass(getattr(openai, name), Exception)
    assert issubclass(openai.APITimeoutError, openai.APIConnectionError)


def test_importing_the_rollout_costs_nothing_of_a2a_or_kafka():
    """Agents' modules are imported by tests and notebooks, too."""
    import subprocess

    code = "import odradek.agents, sys; print({'a2a', 'aiokafka', 'google.protobuf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "set()" == done.stdout.strip()


def test_executors_get_their_rollout_from_the_context():
    """Outside a host of ours there is none."""
    found = rollout()
    assert found is rollout_of(context(found))
    with pytest.raises(LookupError):
        rollout_of(SimpleNamespace(call_context=SimpleNamespace(state={})))


async def test_a_program_reaches_the_proxy_past_any_other(tmp_path, monkeypatch):
    """A company's HTTP proxy stays for the rest of the world."""
    monkeypatch.setenv("HTTPS_PROXY", "http://company:3128")
    monkeypatch.setenv("NO_PROXY", "intern")
    monkeypatch.delenv("no_proxy", raising=False)
    seen = tmp_path / "seen.json"
    await play(
        "import json, os; names = ('HTTPS_PROXY', 'NO_PROXY', 'no_proxy')\n"
        f"json.dump([os.environ[name] for name in names], open({str(seen)!r}, 'w'))",
        tmp_path,
    )
    ours = "intern,127.0.0.1,localhost,::1"
    assert ["http://company:3128", ours, ours] == json.loads(seen.read_text())


async def test_a_reward_file_of_any_editor_is_read(tmp_path):
    """A byte order mark is no part of it."""
    found = await play(
        "open('reward.json', 'wb').write(b'\\xef\\xbb\\xbf{\\r\\n\"game\": 1}\\r\\n')", tmp_path
    )
    assert {"game": 1.0} == values(found)
