"""A trace of one step on demand: `touch OUTPUT_DIR/profile`.

A file, since it needs neither the process' id nor a restart, and reaches a trainer in a container
or on another machine. The next step takes it away and is profiled: its forward and backward passes
and its optimizer, without the wait for rows. The trace goes to `profile-step-N.json.gz` beside it,
which Perfetto (ui.perfetto.dev) and chrome://tracing show.
"""

import logging
from pathlib import Path
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile

ASKED: Final = "profile"
"""The file that asks for a trace."""

log = logging.getLogger("odradek")


class StepProfiler:
    """Profiles the steps that somebody asks for.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: profile | None = None

    def begin(self) -> None:
        """A step begins: profile it if somebody asked for it. A profile under way is dropped."""
        self.drop()
        try:
            (self._folder / ASKED).unlink()
        except OSError:
            return  # nobody asked
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._running = profile(activities=activities, record_shapes=True)
        self._running.start()

    def end(self, step: int) -> Path | None:
        """The step is computed: write its trace, if it was profiled.

        A trace that cannot be written is a warning: it costs no step.
        """
        if self._running is None:
            return None
        running, self._running = self._running, None
        running.stop()
        path = self._folder / f"profile-step-{step}.json.gz"
        try:
            running.export_chrome_trace(str(path))
        except (OSError, RuntimeError) as error:
            log.warning("the trace of step %d cannot be written: %s", step, error)
            return None
        log.info("step %d is traced in %s", step, path)
        return path

    def drop(self) -> None:
        """Forget a profile whose step did not come to its end."""
        if self._running is not None:
            self._running.stop()
            self._running = None
