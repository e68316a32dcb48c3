"""The trainer and the engine: the only folder that imports torch, and only in its modules."""

import importlib
import os
from typing import Any

# TRL warns on every import that its asynchronous trainer is experimental. We know: it is pinned to
# one minor version, and a test holds its numbers.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def __getattr__(name: str) -> Any:
    """`odradek.trainer.rollout_func`, imported when it is asked for."""
    if name in {"rollout_func", "reward_of"}:
        return getattr(importlib.import_module("odradek.trainer.rollout"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
