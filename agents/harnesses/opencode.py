"""opencode, on chat completions."""

from pathlib import Path
from typing import Final

from odradek.agents.harnesses.harness import Harness, Model, Setup, as_json

KEY: Final = "OPENAI_API_KEY"
PROVIDER: Final = "odradek"
AGENTS: Final = ("build", "plan", "general", "explore")
"""Those it has of its own, sub-agents among them."""
FOLDER: Final = ".config/opencode"
INSTALLED: Final = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}
"""What its folder's package-lock.json must say, or each run installs that package from npm."""


def prepare(model: Model, home: Path) -> Setup:
    """One run. Its session has a title, else it asks the model for one."""
    del home
    return Setup(
        arguments=(
            "run", "--auto", "--pure", "--title", "task", "--model", f"{PROVIDER}/{model.name}",
        ),
        variables={
            KEY: model.key,
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_SHARE": "1",
        },
        files={
            f"{FOLDER}/opencode.json": as_json(config(model)),
            f"{FOLDER}/package-lock.json": as_json(INSTALLED),
            f"{FOLDER}/node_modules/.keep": "",
        },
    )  # fmt: skip


def config(model: Model) -> dict[str, object]:
    """Its opencode.json."""
    name = f"{PROVIDER}/{model.name}"
    return {
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "enabled_providers": [PROVIDER],
        "model": name,
        "small_model": name,
        "provider": {
            PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{model.root}/v1", "apiKey": f"{{env:{KEY}}}"},
                "models": {model.name: {}},
            }
        },
        # By some models' names it would add a top_p, and nothing could be trained.
        "agent": {agent: {"top_p": 1} for agent in AGENTS},
        "permission": {"webfetch": "deny", "websearch": "deny"},
    }


HARNESS: Final = Harness(
    name="opencode",
    program="opencode",
    install="npm install --global opencode-ai",
    owns=("OPENCODE_",),
    prepare=prepare,
)
