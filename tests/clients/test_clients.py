"""Real clients, unmodified: what they saw, what the log holds, and what they see without us."""

import pytest

from tests.support.engines.stub_engine import tool_call
from tests.support.proxy.expected_tokens import held

LOOK = {"content": None, "reasoning": "hm, né", "tool_calls": [tool_call("look", '{"at": "né"}')]}
DONE = {"content": "né: done"}
SCRIPT = [LOOK, DONE]
# Of chat completions most clients hand no reasoning back, so templates see another history.
PLAIN = [{**LOOK, "reasoning": None}, DONE]
CALL = ["call-1", "look", {"at": "né"}]


def check(play, dialects, sequences):
    """Each turn's tokens are those that the engine must have given; nothing is left out."""
    assert dialects == [turn.dialect for turn in play.bench.turns()]
    assert sequences == len(held(play.bench).sequences)


async def test_openai_sdk(play, program):
    """Chat with tools, whole and streamed, then Responses by id: four equal conversations."""
    command = program("openai_sdk", scratch=False)
    seen = await play(command, PLAIN)
    assert [None, CALL, "né: done"] * 4 == seen.said
    check(play, ["chat"] * 4 + ["responses"] * 4, 4)


async def test_anthropic_sdk(play, program):
    """Messages with tools and thinking: the prompt of the second call begins with all of the first."""
    seen = await play(program("anthropic_sdk", scratch=False), SCRIPT)
    assert ["hm, né", CALL, "né: done"] * 2 == seen.said
    check(play, ["messages"] * 4, 2)


@pytest.mark.clients
async def test_litellm(play, program):
    """Chat completions and messages; on chat completions, a direct call sees the same."""
    command = program("litellm_client")
    seen = await play(command, PLAIN)
    check(play, ["chat"] * 4 + ["messages"] * 4, 4)
    direct = await play(command, PLAIN, direct=True)
    assert [None, CALL, "né: done"] * 2 == direct.said
    assert direct.said == seen.said[:6]
    assert direct.said == seen.said[6:]


@pytest.mark.clients
async def test_openai_agents_hand_over(play, program):
    """Two agents in one conversation, on Responses: the second's other tools begin a sequence."""
    over = {"tool_calls": [tool_call("transfer_to_second", "{}", "call-0")]}
    seen = await play(program("agents_sdk"), [over, LOOK, DONE])
    assert [[["né: done", "second"]] * 2, ["né", "né"]] == seen.said
    turns = play.bench.turns()
    assert ["responses"] * 6 == [turn.dialect for turn in turns]
    named = [[tool["function"]["name"] for tool in call["tools"]] for call in play.engine.calls]
    assert [["transfer_to_second"], ["look"], ["look"]] * 2 == named
    # The second agent has instructions of its own, so its prompt is another one.
    check(play, ["responses"] * 6, 4)


@pytest.mark.clients
async def test_pydantic_ai(play, program):
    """An agent with a tool, on chat completions and on Responses, whole and streamed."""
    seen = await play(program("pydantic_agent"), PLAIN)
    assert [["né: done"] * 4, ["né"] * 4] == seen.said
    # It writes arguments anew, without blanks. On chat completions that goes to the engine as it
    # is, and each such turn begins a sequence; on Responses the proxy knows the engine's spelling.
    check(play, ["chat"] * 4 + ["responses"] * 4, 4 + 2)


@pytest.mark.clients
async def test_langchain(play, program):
    """ChatOpenAI with a tool, on both APIs, whole and streamed."""
    seen = await play(program("langchain_chat"), PLAIN)
    assert ["", CALL[1:], "né: done"] * 4 == seen.said
    check(play, ["chat"] * 4 + ["responses"] * 4, 4)


@pytest.mark.clients
async def test_a_coding_agent_as_a_subprocess(play, program, tmp_path):
    """mini-swe-agent, from its own command line: it makes a file and hands in its work."""
    python, _ = program("none")
    folder = tmp_path / "work"
    folder.mkdir()
    script = [
        {"content": "I make it.", "tool_calls": [
            tool_call("bash", '{"command": "echo né > made.txt"}', "a")]},
        {"content": "I am done.", "tool_calls": [
            tool_call("bash", '{"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}', "b")]},
    ]  # fmt: skip
    command = [
        python.parent / "mini", "-m", "openai/policy", "-t", "make a file", "-y",
        "--exit-immediately", "-o", tmp_path / "run.json",
    ]  # fmt: skip
    await play(
        command, script, cwd=folder, MSWEA_CONFIGURED="true", MSWEA_COST_TRACKING="ignore_errors"
    )
    assert "né\n" == (folder / "made.txt").read_text()
    check(play, ["chat"] * 2, 1)
