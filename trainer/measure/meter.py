"""What one step cost: the parts of `measure` together, as the trainer uses them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from odradek.trainer.measure.flops import cost_of
from odradek.trainer.measure.memory import MemoryMeter
from odradek.trainer.measure.profile import StepProfiler
from odradek.trainer.measure.speed import peak_flops, rates
from odradek.trainer.measure.times import StepTimes


class StepMeter:
    """Measures each step from the wait for its rows to the end of the optimizer.

    Args:
        model: A causal model of transformers, on its device.
        folder: Of the run: who wants a trace of a step asks there.
        precision: `bfloat16` or `float32`, of matrix products.
        tf32: Whether products in float32 may be taken in TF32.
        clock: Seconds, from any beginning.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        precision: str,
        *,
        tf32: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        shapes = ((name, tuple(tensor.shape)) for name, tensor in model.named_parameters())
        self._cost = cost_of(model.config.get_text_config(), shapes)
        device = model.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        arithmetic = "bf16" if precision == "bfloat16" else "tf32" if tf32 else "fp32"
        self._peak = peak_flops(name, arithmetic)
        self._clock = clock
        self._times = StepTimes(clock)
        self._memory = MemoryMeter(device)
        self._profiler = StepProfiler(folder)
        self._began = clock()
        self.forget()

    def forget(self) -> None:
        """Count the step's tokens anew; the time that they took stays its time."""
        self._tokens = 0
        self._operations = 0.0

    def part(self, name: str) -> AbstractContextManager[None]:
        """Count the time until the end of the block for a part of the step: see `times.PARTS`."""
        return self._times.part(name)

    @contextlib.contextmanager
    def timed(self, name: str, metrics: dict[str, float]) -> Iterator[None]:
        """Put the seconds of a block that ends well into metrics: it comes after `finish`."""
        began = self._clock()
        yield
        metrics[name] = self._clock() - began

    def begin(self) -> None:
        """The rows of a step are there: its time begins, and its trace if one is asked for."""
        self._profiler.begin()
        self._began = self._clock()

    def add(self, positions: torch.Tensor, scored: int) -> None:
        """Add a micro-batch.

        Args:
            positions: Of its packed tokens in their rows, shape (n,): each may look at so many
                others, and at itself.
            scored: Tokens that went through the head.
        """
        tokens = len(positions)
        self._tokens += tokens
        pairs = int(positions.sum()) + tokens
        self._operations += self._cost.step(tokens, scored, pairs)

    def finish(self, step: int) -> dict[str, float]:
        """The metrics of a step whose optimizer is through; everything is cleared.

        What no part counted is the optimizer's: clipping, its update, and the checks around it.
        """
        seconds = self._clock() - self._began
        parts = {"wait_s": 0.0, "plan_s": 0.0, "forward_s": 0.0} | self._times.finish()
        optimizer = seconds - parts["plan_s"] - parts["forward_s"]
        metrics = {
            **parts,
            "optimizer_s": max(optimizer, 0.0),
            "train_s": seconds,
            **rates(
                tokens=self._tokens,
                operations=self._operations,
                seconds=seconds,
                peak=self._peak,
            ),
            **self._memory.read(),
        }
        self._profiler.end(step)
        self.forget()
        return metrics
