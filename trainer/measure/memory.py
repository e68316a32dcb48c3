"""Memory of the process that trains: on a GPU what torch holds there, else what is resident."""

import contextlib
import resource
import sys
from pathlib import Path
from typing import Final

import torch

MB: Final = 1e6
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_PEAK: Final = "5"
"""What sets Linux' peak back to what is resident now (proc_pid_clear_refs(5))."""


class MemoryMeter:
    """Measures memory now, and its peak since it was asked last.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._forget_peak()

    def read(self) -> dict[str, float]:
        """`memory_mb` and `peak_memory_mb`, in 10^6 bytes; the next peak begins here.

        Where the system tells no peak since then, it is that since the process began.
        """
        now, peak = self._on_cuda() if self._device.type == "cuda" else _resident()
        self._forget_peak()
        return {"memory_mb": now / MB, "peak_memory_mb": peak / MB}

    def _on_cuda(self) -> tuple[float, float]:
        return (
            float(torch.cuda.memory_allocated(self._device)),
            float(torch.cuda.max_memory_allocated(self._device)),
        )

    def _forget_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with contextlib.suppress(OSError):  # not on Linux, or not allowed
                _CLEAR.write_text(_PEAK)


def _resident() -> tuple[float, float]:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
        return most, most
    sizes = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    now, peak = (float(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak
