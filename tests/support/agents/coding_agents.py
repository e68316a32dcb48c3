"""The coding agents that `scripts/prove clients` plays: how each writes a file, and a model that makes it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support.engines.stub_engine import tool_call

ROOT = Path(__file__).parents[3]
MADE = "made.txt"
PROMPT = f"Write né into {MADE}"
DONE = {"content": "né: done"}
BIN = ROOT / ".clients" / "node_modules" / ".bin"
AIDER = ROOT / ".venv-aider" / "bin"
PYTHON = ROOT / ".venv-clients" / "bin"


@dataclass(frozen=True)
class Agent:
    """One coding agent, and what it calls its own."""

    name: str
    program: Path
    package: str
    """As requirements/agents/package.json has it."""
    dialect: str
    tool: str
    """Which of its tools writes a file."""
    arguments: dict
    """Of that tool; @@ stands for the folder that it works in."""
    respells: bool = False
    """Whether it prints a call's arguments anew, without blanks, so that its tokens are others."""
    last: tuple = (DONE,)
    """What the model says once the file is there."""
    heading: str = ""
    """Over its block in docs/write-an-agent.md."""


SUBMIT = {
    "content": "I hand it in.",
    "tool_calls": [
        tool_call("bash", '{"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}', "call-2")
    ],
}
FILE = {"content": "né\n"}
AGENTS = {
    "claude-code": Agent(
        "claude-code", BIN / "claude", "@anthropic-ai/claude-code", "messages",
        "Write", {"file_path": f"@@/{MADE}", **FILE}, heading="Claude Code",
    ),
    "codex": Agent(
        "codex", BIN / "codex", "@openai/codex", "responses",
        "exec_command", {"cmd": f"echo né > {MADE}"}, heading="Codex",
    ),
    "opencode": Agent(
        "opencode", BIN / "opencode", "opencode-ai", "chat",
        "write", {"filePath": f"@@/{MADE}", **FILE}, respells=True, heading="opencode",
    ),
    "qwen-code": Agent(
        "qwen-code", BIN / "qwen", "@qwen-code/qwen-code", "chat",
        "write_file", {"file_path": f"@@/{MADE}", **FILE}, respells=True, heading="Qwen Code",
    ),
    "pi": Agent(
        "pi", BIN / "pi", "@earendil-works/pi-coding-agent", "chat",
        "write", {"path": MADE, **FILE}, respells=True, heading="pi",
    ),
    "gemini-cli": Agent(
        "gemini-cli", BIN / "gemini", "@google/gemini-cli", "gemini",
        "write_file", {"file_path": f"@@/{MADE}", **FILE}, heading="Gemini CLI",
    ),
    "mini-swe-agent": Agent(
        "mini-swe-agent", PYTHON / "mini", "mini-swe-agent", "chat",
        "bash", {"command": f"echo né > {MADE}"}, last=(SUBMIT,), heading="mini-swe-agent",
    ),
    # It has no tools: it reads files out of the reply's text.
    "aider": Agent(
        "aider", AIDER / "aider", "aider-chat", "chat", "", {}, heading="aider",
    ),
}  # fmt: skip


def block(name):
    """The shell lines of docs/write-an-agent.md that point the agent at the proxy."""
    page = (ROOT / "docs" / "write-an-agent.md").read_text()
    under = rf"^#### {re.escape(AGENTS[name].heading)}\n.*?```sh\n(.*?)```"
    return re.search(under, page, re.DOTALL | re.MULTILINE).group(1)


@dataclass
class Model:
    """A script for the stub engine: it writes the file, looks whether it is there, and is done.

    It counts replies in the conversation that it is asked to go on with, so side calls and
    sub-agents get their own.
    """

    agent: Agent
    work: Path
    """The folder that the agent works in; a pattern is resolved when it is needed."""
    spelling: Callable = field(default=partial(json.dumps, ensure_ascii=False))
    """How it writes the arguments of its calls."""
    made: list = field(default_factory=list)
    """What stood in the file when the model heard of it."""
    side: int = 0
    """How many calls came without tools from an agent that has some."""

    def __call__(self, asked):
        """The next message of the assistant."""
        if self.agent.tool and not asked.get("tools"):
            self.side += 1
            return {"content": "a title"}
        spoken = self.spoken(asked)
        if spoken == 0:
            return self.write()
        self.made.append((self.folder() / MADE).read_text())
        return self.agent.last[min(spoken, len(self.agent.last)) - 1]

    def spoken(self, asked):
        """How many replies of this model the conversation holds."""
        texts = [json.dumps(m) for m in asked["messages"] if m["role"] == "assistant"]
        return sum("I make it." in text or "né: done" in text for text in texts)

    def write(self):
        """The call, or the text, that makes the file."""
        if not self.agent.tool:
            return {"content": f"I make it.\n\n{MADE}\n```\nné\n```\n"}
        arguments = self.spelling(self.agent.arguments).replace("@@", str(self.folder()))
        return {"content": "I make it.", "tool_calls": [tool_call(self.agent.tool, arguments)]}

    def folder(self):
        """Where the agent works now."""
        if "*" not in str(self.work):
            return self.work
        (found,) = Path(self.work.anchor).glob(str(self.work.relative_to(self.work.anchor)))
        return found
