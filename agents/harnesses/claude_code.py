"""Claude Code, on Messages."""

from pathlib import Path
from typing import Final

from odradek.agents.harnesses.harness import Harness, Model, Setup

TIERS: Final = ("OPUS", "SONNET", "HAIKU", "FABLE")
"""Its own names of models; sub-agents and summaries ask for one of them."""


def prepare(model: Model, home: Path) -> Setup:
    """One run: no questions, no session kept, nothing asked for but the model."""
    return Setup(
        arguments=(
            "--print", "--dangerously-skip-permissions", "--no-session-persistence",
            "--model", model.name, "--disallowed-tools", "WebSearch,WebFetch",
        ),
        variables={
            "ANTHROPIC_BASE_URL": model.root,
            "ANTHROPIC_AUTH_TOKEN": model.key,
            "ANTHROPIC_MODEL": model.name,
            **{f"ANTHROPIC_DEFAULT_{tier}_MODEL": model.name for tier in TIERS},
            "CLAUDE_CODE_SUBAGENT_MODEL": model.name,
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "CLAUDE_CONFIG_DIR": str(home / ".claude"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_TELEMETRY": "1",
            # Else it refuses to skip its questions where it runs as root, as in most containers.
            "IS_SANDBOX": "1",
        },
    )  # fmt: skip


HARNESS: Final = Harness(
    name="claude-code",
    program="claude",
    install="npm install --global @anthropic-ai/claude-code",
    owns=("CLAUDE", "AWS_BEARER_TOKEN_BEDROCK", "DISABLE_", "ENABLE_", "MAX_THINKING_TOKENS"),
    prepare=prepare,
)
