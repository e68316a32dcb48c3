"""Qwen Code, on chat completions."""

from pathlib import Path
from typing import Final

from odradek.agents.harnesses.harness import Harness, Model, Setup, as_json


def prepare(model: Model, home: Path) -> Setup:
    """One run: no questions, no recording of the chat."""
    return Setup(
        arguments=("--yolo", "--auth-type", "openai", "--model", model.name),
        variables={
            "OPENAI_BASE_URL": f"{model.root}/v1",
            "OPENAI_API_KEY": model.key,
            "OPENAI_MODEL": model.name,
            "QWEN_HOME": str(home / ".qwen"),
        },
        files={".qwen/settings.json": as_json(SETTINGS)},
    )


SETTINGS: Final = {
    "general": {"enableAutoUpdate": False, "chatRecording": False},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "tools": {"exclude": ["web_fetch", "web_search"]},
}

HARNESS: Final = Harness(
    name="qwen-code",
    program="qwen",
    install="npm install --global @qwen-code/qwen-code",
    owns=("QWEN_", "DASHSCOPE_", "BAILIAN_", "MODELSCOPE_"),
    prepare=prepare,
)
