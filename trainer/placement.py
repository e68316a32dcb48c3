"""Where a trainer may run, read and write: one process, one device. Pure: no torch.

One trainer is one process on one device until several share a step. What starts more of them, or
would split a model over several GPUs behind our back, is refused before anything is read or
published, in a line that says what to do instead.
"""

import os
from collections.abc import Mapping
from typing import Final

from odradek.schemas.errors import UnknownTopic
from odradek.schemas.topics import BATCHES, MIXED, find
from odradek.trainer.errors import BadSettings

WORLD: Final = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables that say how many processes a launcher started; accelerate reads the same."""
RANK: Final = "LOCAL_RANK"
"""Set for each process of a launcher: torch then looks for the others."""
MODES: Final = (
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)
"""What `accelerate launch` switches on besides ranks."""
PRECISION: Final = "ACCELERATE_MIXED_PRECISION"
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"

_ALONE: Final = "start `odradek train` itself, once: it trains in one process, on one device"


def refuse_launchers(environ: Mapping[str, str]) -> None:
    """Raise BadSettings for a process that a launcher of several started (torchrun, mpirun, …)."""
    for name in WORLD:
        if environ.get(name, "1").strip() not in {"", "1"}:
            raise BadSettings(f"{name} is {environ[name]}: several trainers were started; {_ALONE}")
    if environ.get(RANK, "-1").strip() not in {"", "-1"}:
        raise BadSettings(f"{RANK} is set, as torchrun and accelerate do; {_ALONE}")
    for name in MODES:
        if environ.get(name, "false").strip().lower() not in {"", "0", "false", "no", "off"}:
            raise BadSettings(f"{name} is set, as `accelerate launch` does; {_ALONE}")
    if (mixed := environ.get(PRECISION, "no").strip().lower()) not in {"", "no"}:
        raise BadSettings(
            f"{PRECISION} is {mixed}, but only the setting precision says how steps are computed: "
            f"unset it, and {_ALONE}"
        )


def require_optimizer(optimizer: str, device: str, *, installed: bool) -> None:
    """Raise BadSettings for an optimizer of bitsandbytes where nothing computes with it.

    Args:
        optimizer: The setting.
        device: `cpu` or another.
        installed: Whether bitsandbytes is.
    """
    if optimizer == "adamw":
        return
    if device == "cpu":
        raise BadSettings(
            f"optimizer is {optimizer}, which needs a GPU, and device is cpu: set optimizer = adamw"
        )
    if not installed:
        raise BadSettings(
            f"optimizer is {optimizer}, which is bitsandbytes' own: pip install bitsandbytes, or "
            "set optimizer = adamw"
        )


def require_liger(device: str, *, asked: bool, installed: bool) -> None:
    """Raise BadSettings for Liger's kernels where nothing computes with them.

    Args:
        device: `cpu` or another.
        asked: The setting.
        installed: Whether liger-kernel is.
    """
    if not asked:
        return
    if device == "cpu":
        raise BadSettings(
            "liger is true, whose kernels need a GPU, and device is cpu: set liger = false"
        )
    if not installed:
        raise BadSettings(
            "liger is true, but liger-kernel is not installed: pip install liger-kernel, or set "
            "liger = false"
        )


def visible(device: str, gpus: int, environ: Mapping[str, str]) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES for `device`, or None to leave it as it is.

    Args:
        device: The setting: `auto`, `cpu`, `cuda` or `cuda:<number>`.
        gpus: How many GPUs torch sees.
        environ: Of this process.

    Raises:
        BadSettings: The device is not there, or nothing says which of several is meant. Torch's
            own choice would be all of them at once (DataParallel), the engine's among them.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind == "auto" and gpus <= 1):
        return None
    if gpus == 0:
        raise BadSettings(
            f"device is {device}, but torch sees no GPU: install a driver and a torch that fit, "
            f"look at {VISIBLE}, or set device = cpu"
        )
    if number:
        if int(number) >= gpus:
            raise BadSettings(
                f"device is {device}, but torch sees {gpus} GPUs (cuda:0 to cuda:{gpus - 1}): "
                f"name one of them, or change {VISIBLE}"
            )
        visible = [name.strip() for name in environ.get(VISIBLE, "").split(",") if name.strip()]
        return (visible or [str(index) for index in range(gpus)])[int(number)]
    if gpus > 1:
        raise BadSettings(
            f"device is {device} and torch sees {gpus} GPUs, but a trainer uses one: name it with "
            f"device = cuda:{gpus - 1} (ODRADEK_TRAINER_DEVICE), or with {VISIBLE}"
        )
    return None


def holds_others(topic: str) -> bool:
    """Whether a topic is one of the table that has something else than batches on it."""
    try:
        return find(topic) not in {BATCHES, MIXED}
    except UnknownTopic:
        return False


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it."""
    inner, outer = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100 - links stay
    return inner == outer or inner.startswith(outer + os.sep)
