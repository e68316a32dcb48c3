"""What the trainer sends to an engine whose weights change. The trainer sends, the engine answers.

The spelling is that of vLLM 0.30 in its development mode; the small engine has the same.
"""

from typing import Any

from msgspec import Struct, field


class ReloadArguments(Struct, frozen=True):
    """Arguments of `WeightReload`."""

    weights_path: str
    """Absolute folder that the engine can read: `config.json`, and `model.safetensors` or, with
    their index, its shards."""


class WeightReload(Struct, frozen=True):
    """Load weights from a folder, in place; answered once they are loaded."""

    kwargs: ReloadArguments
    method: str = "reload_weights"


class AdapterLoad(Struct, frozen=True):
    """Load a LoRA adapter beside the model; answered once calls may name it."""

    lora_name: str
    """What calls name as their `model`: `POLICY-vVERSION`, never the same twice."""
    lora_path: str
    """Absolute folder that the engine can read: `adapter_model.safetensors` and
    `adapter_config.json`."""


class AdapterUnload(Struct, frozen=True):
    """Forget an adapter; calls under way go on with it."""

    lora_name: str


class VersionName(Struct, frozen=True):
    """What the weights are called from now on."""

    new_version: str
    """The policy version, in digits."""


class CacheReset(Struct):
    """Whether the prefix cache is empty now."""

    success: Any = None
    """False says that it was kept; anything else that it was reset."""


class PauseTerms(Struct, frozen=True):
    """How to pause, in the query."""

    mode: str = "keep"
    """`keep`: requests under way stay, and go on with the new weights after the pause."""


class ResetTerms(Struct, frozen=True):
    """What to reset, in the query."""

    reset_running_requests: str = "true"
    """Without it a reset does nothing while any request holds a block of the cache."""
    reset_external: str = "true"
    """Caches outside the engine, too."""


class Acknowledgement(Struct):
    """An answer of which only the status counts."""

    status: Any = field(default=None)


def adapter_name(policy: str, version: int) -> str:
    """What engines call the adapter of a policy's version: never the same twice."""
    return f"{policy}-v{version}"


def version_named(policy: str, name: str) -> int | None:
    """The version of a policy's adapter of this name; None for any other name."""
    prefix, _, version = name.rpartition("-v")
    return int(version) if prefix == policy and version.isascii() and version.isdigit() else None
