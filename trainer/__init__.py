"""The trainer and the engine: the only folder that imports torch, and only in its modules."""

import importlib
import os
from typing import Any

# TRL warns on every import that its asynchronous trainer is experimental. We know: it is pinned to
# one minor version, and a test holds its numbers.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

PLAIN = {
    "BusGRPOTrainer": "plain",
    "BusTraining": "plain",
    "DirectoryTransfer": "weights.directory",
    "Engines": "weights.engines",
    "reward_of": "rollout",
    "rollout_func": "rollout",
}
"""Name: the module that has it."""


def __getattr__(name: str) -> Any:
    """What people on plain TRL use, imported when it is asked for."""
    if name in PLAIN:
        return getattr(importlib.import_module(f"odradek.trainer.{PLAIN[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
