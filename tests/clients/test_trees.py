"""Real coding agents that start a sub-agent, or compact their history: the log's tree shows it."""

import json
from dataclasses import replace

import pytest

from odradek.agents.harnesses import HARNESSES
from odradek.schemas.events import parsed
from tests.support.agents.coding_agents import AGENTS, DONE, MADE, PROMPT, Model
from tests.support.engines.stub_engine import tool_call

pytestmark = pytest.mark.clients
ERRAND = "Look whether the moon is there, and write it down."
SEND = "I send a helper."
SUMMARY = "<summary>A file was asked for, and is there.</summary>"
KNOWN = {"description": "look", "prompt": ERRAND}
HELPERS = {
    "claude-code": (
        "Agent", {**KNOWN, "subagent_type": "general-purpose", "run_in_background": False},
    ),
    "opencode": ("task", {**KNOWN, "subagent_type": "general"}),
    "qwen-code": ("agent", {**KNOWN, "subagent_type": "general-purpose"}),
}  # fmt: skip
"""Agent: its tool that starts another, and with what."""
LIMITS = {
    "codex": lambda text: f"model_auto_compact_token_limit = 1000\n{text}",
    "opencode": lambda text: text.replace(
        '"policy": {}', '"policy": {"limit": {"context": 12000, "output": 1000}}'
    ),
}
"""Agent: how its configuration makes it compact early."""


class Delegating(Model):
    """It sends a helper to write the file, waits for it, and is done."""

    def __call__(self, asked):
        """The parent's next message, or the helper's."""
        if asked.get("tools") and PROMPT not in str(asked["messages"]):
            return super().__call__(asked)
        if any(message["role"] == "tool" for message in asked["messages"]):
            return {"content": "né: both done"}
        tool, arguments = HELPERS[self.agent.name]
        return {"content": SEND, "tool_calls": [tool_call(tool, compact(arguments), "call-0")]}


class Long(Model):
    """It says so much that its history is compacted, and goes on from the summary."""

    def __call__(self, asked):
        """The summary where it is asked for."""
        if "summary" in str(asked["messages"][-1]).lower() and SUMMARY not in str(
            asked["messages"]
        ):
            return {"content": SUMMARY}
        if SUMMARY in str(asked["messages"]):
            self.made.append((self.folder() / MADE).read_text())
            return DONE
        message = super().__call__(asked)
        return {**message, "content": message["content"] + " So much to say." * 200}


def compact(arguments):
    """JSON as these agents print it anew."""
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def replies(stage, episode):
    """What was said in each sequence, in its order."""
    by_id = {turn.turn_id: parsed(turn.reply.message)["content"] for turn in stage.turns()}
    return [[by_id[turn_id] for turn_id in sequence.turn_ids] for sequence in episode.sequences]


@pytest.mark.parametrize("name", HELPERS)
async def test_a_sub_agent_has_a_sequence_of_its_own(name, stage, hosted, tmp_path, row):
    """Its calls come between its parent's, whose sequence goes on where it was."""
    model = Delegating(AGENTS[name], tmp_path / "odradek-*/work", spelling=compact)
    episode = await hosted(name, model)
    assert ["né\n"] == model.made
    parent, helper = sorted(replies(stage, episode), key=lambda said: said[0] != SEND)
    # One that works in the background is reported twice: when it starts, and when it is done.
    assert SEND == parent[0]
    assert {"né: both done"} == set(parent[1:])
    assert ["I make it.", "né: done"] == helper
    assert ["rewritten"] == [entry.reason for entry in episode.breaks]
    row(name, "harness, with a sub-agent", episode)


@pytest.mark.parametrize("name", LIMITS)
async def test_a_compacted_history_begins_a_sequence(
    name, stage, hosted, tmp_path, monkeypatch, row
):
    """The summary belongs to what it sums up or stands alone; what follows it is another prompt."""
    harness = HARNESSES[name]

    def prepare(model, home):
        setup = harness.prepare(model, home)
        files = {path: LIMITS[name](text) for path, text in setup.files.items()}
        return replace(setup, files=files)

    monkeypatch.setitem(HARNESSES, name, replace(harness, prepare=prepare))
    model = Long(AGENTS[name], tmp_path / "odradek-*/work", spelling=compact)
    episode = await hosted(name, model)
    assert ["né\n"] == model.made
    said = replies(stage, episode)
    assert said[0][0].startswith("I make it.")
    assert [SUMMARY, "né: done"] == [text for texts in said for text in texts][1:]
    assert ["né: done"] == said[-1]
    assert {"rewritten"} == {entry.reason for entry in episode.breaks}
    assert len(said) == 1 + len(episode.breaks)
    row(name, "harness, compacting", episode)


async def test_system_messages_between_others_stay_where_they_are(stage, hosted, tmp_path):
    """Claude Code says more to the system behind the user's message: so does the log."""
    await hosted("claude-code", Model(AGENTS["claude-code"], tmp_path / "odradek-*/work"))
    first, second = stage.turns()
    assert ["system", "user", "system"] == [parsed(m)["role"] for m in first.request.messages]
    assert first.turn_id == second.request.base
    assert "tool" == parsed(second.request.messages[0])["role"]
