"""OpenAI's Codex, on Responses."""

import json
from pathlib import Path
from typing import Final

from odradek.agents.harnesses.harness import Harness, Model, Setup

KEY: Final = "OPENAI_API_KEY"


def prepare(model: Model, home: Path) -> Setup:
    """One run: no questions and no sandbox of its own, so that it also runs in containers."""
    return Setup(
        arguments=(
            "exec", "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check",
            "--ephemeral", "-",
        ),
        variables={"CODEX_HOME": str(home / ".codex"), KEY: model.key},
        files={".codex/config.toml": config(model)},
    )  # fmt: skip


def config(model: Model) -> str:
    """Its config.toml. TOML reads JSON's strings, but for pairs of surrogates."""
    name, address = (
        json.dumps(text, ensure_ascii=False) for text in (model.name, f"{model.root}/v1")
    )
    return f"""\
model = {name}
model_provider = "odradek"
web_search = "disabled"
check_for_update_on_startup = false

[model_providers.odradek]
name = "odradek"
base_url = {address}
env_key = "{KEY}"
wire_api = "responses"

[features]
apps = false
plugins = false

[analytics]
enabled = false

[feedback]
enabled = false

[history]
persistence = "none"
"""


HARNESS: Final = Harness(
    name="codex",
    program="codex",
    install="npm install --global @openai/codex",
    owns=("CODEX_",),
    prepare=prepare,
)
