"""Harnesses: coding agents that `odradek agent --harness NAME` sets up in one word.

Each file is one agent: which program it is, and which arguments, variables and configuration files
point it at the proxy and keep it from asking anybody else. None of them does I/O; the runner
`odradek.agents.runners.HarnessRunner` writes what they say into the run's own folder.
"""

from typing import Final

from odradek.agents.harnesses import claude_code, codex, gemini_cli, opencode, pi, qwen_code
from odradek.agents.harnesses.harness import Harness, Model, Setup, prompt_of

HARNESSES: Final[dict[str, Harness]] = {
    module.HARNESS.name: module.HARNESS
    for module in (claude_code, codex, opencode, qwen_code, pi, gemini_cli)
}

__all__ = ["HARNESSES", "Harness", "Model", "Setup", "prompt_of"]
