"""The trainer and the engine: the only folder that imports torch, and only in its modules.

`process` starts a run: `feed` reads batches from the log and makes rows of them, `plan` says which
rows are computed together, `step` makes gradients of rows by one of the `losses`, `adapters` are
what is trained where not all weights are, `commit` makes a step durable and known, `saving` writes
its checkpoints beside it, and `weights` brings them to the engines. `engine` is the small engine,
and vLLM's start; trainer and engine load `models` alike. `trl_rollouts` and `trl_trainer` are for
people who use TRL's own trainer.
"""

import importlib
import os
from typing import Any

# TRL warns on every import that its asynchronous trainer is experimental. We know: it is pinned to
# one minor version, and a test holds its numbers.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

_PLAIN = {
    "BusGRPOTrainer": "trl_trainer",
    "BusTraining": "trl_trainer",
    "DirectoryTransfer": "weights.directory",
    "Engines": "weights.engines",
    "reward_of": "trl_rollouts",
    "rollout_func": "trl_rollouts",
}
"""Name: the module that has it."""


__all__ = [
    "BusGRPOTrainer",
    "BusTraining",
    "DirectoryTransfer",
    "Engines",
    "reward_of",
    "rollout_func",
]


def __getattr__(name: str) -> Any:
    """What people on plain TRL use, imported when it is asked for."""
    if name in _PLAIN:
        return getattr(importlib.import_module(f"odradek.trainer.{_PLAIN[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
