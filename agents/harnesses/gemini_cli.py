"""Gemini CLI, on Google's generateContent."""

from pathlib import Path
from typing import Final

from odradek.agents.harnesses.harness import Harness, Model, Setup, as_json


def prepare(model: Model, home: Path) -> Setup:
    """One run: no questions, in a folder that it need not trust first."""
    return Setup(
        arguments=("--approval-mode", "yolo", "--skip-trust", "--model", model.name),
        variables={
            "GOOGLE_GEMINI_BASE_URL": model.root,
            "GEMINI_API_KEY": model.key,
            "GEMINI_MODEL": model.name,
            "GEMINI_CLI_HOME": str(home),
        },
        files={".gemini/settings.json": as_json({**SETTINGS, "modelConfigs": configs(model)})},
    )


def configs(model: Model) -> dict[str, object]:
    """The model as one of its own, or it adds a top_p and a top_k, and nothing could be trained."""
    content = {"temperature": 1, "thinkingConfig": {"includeThoughts": True}}
    alias = {"modelConfig": {"model": model.name, "generateContentConfig": content}}
    return {"customAliases": {model.name: alias}}


SETTINGS: Final = {
    "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "model": {"skipNextSpeakerCheck": True, "disableLoopDetection": True},
    "tools": {"exclude": ["google_web_search", "web_fetch"]},
}

HARNESS: Final = Harness(
    name="gemini-cli",
    program="gemini",
    install="npm install --global @google/gemini-cli",
    owns=("GEMINI_", "GOOGLE_"),
    prepare=prepare,
)
