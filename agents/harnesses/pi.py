"""pi, on chat completions."""

from pathlib import Path
from typing import Final

from odradek.agents.harnesses.harness import Harness, Model, Setup, as_json

KEY: Final = "OPENAI_API_KEY"
PROVIDER: Final = "odradek"


def prepare(model: Model, home: Path) -> Setup:
    """One run: no session kept, nothing asked for but the model."""
    return Setup(
        arguments=("--print", "--no-session", "--provider", PROVIDER, "--model", model.name),
        variables={KEY: model.key, "PI_CODING_AGENT_DIR": str(home / ".pi"), "PI_OFFLINE": "1"},
        files={".pi/models.json": as_json(models(model))},
    )


def models(model: Model) -> dict[str, object]:
    """Its models.json."""
    return {
        "providers": {
            PROVIDER: {
                "baseUrl": f"{model.root}/v1",
                "api": "openai-completions",
                "apiKey": f"${KEY}",
                "models": [{"id": model.name}],
            }
        }
    }


HARNESS: Final = Harness(
    name="pi",
    program="pi",
    install="npm install --global @earendil-works/pi-coding-agent",
    owns=("PI_",),
    prepare=prepare,
)
