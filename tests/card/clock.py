"""Seconds and memory of blocks on a device."""

import contextlib
import time

import torch

MB = 1e6


class Clock:
    """Sums up blocks: their seconds, and the most memory that one added to what stood before."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self.peak_mb = None
        self._device = device

    @contextlib.contextmanager
    def block(self):
        """A block that counts, with everything that it starts on the device."""
        cuda = self._device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            standing = torch.cuda.memory_allocated()
        began = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize()
            added = (torch.cuda.max_memory_allocated() - standing) / MB
            self.peak_mb = round(max(self.peak_mb or 0.0, added), 1)
        self.seconds += time.perf_counter() - began

    def rate(self, tokens: int) -> dict:
        """As figures: tokens a second, and the peak where the device tells one."""
        return {
            "tokens_per_s": round(tokens / self.seconds, 1),
            "seconds": round(self.seconds, 4),
            "peak_mb": self.peak_mb,
        }
