"""Real tools offline: one place for what all their runs write, and the ledger that they are fed."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def offline(tmp_path_factory):
    """Nothing leaves this machine; set before a tool is imported, which reads it once."""
    home = tmp_path_factory.mktemp("tools")
    os.environ |= {
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(home),
        "WANDB_CONFIG_DIR": str(home), "WANDB_DATA_DIR": str(home),
        "TRACKIO_DIR": str(home / "trackio"), "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return Path(home)
