"""Signals that reach a worker: it does not end of them.

Whoever ends a service may signal all that belongs to it: systemd its control group, an operator a
list of processes. A worker that died of that would take its conversation with it, and what its
function makes of a child that died may even be a number. So a worker goes on, says that a signal
met its verdict, and ends when its service hangs up.
"""

import os
import signal
from contextlib import suppress
from threading import local
from types import FrameType
from typing import Final

END: Final = (signal.SIGTERM, signal.SIGHUP)
"""Nothing happens to the function; what it started may have ended, so its verdict is in doubt."""


class Signals:
    """Hears signals in a worker's main thread.

    Attributes:
        met: The signal that met the verdict under way, or "".
    """

    def __init__(self) -> None:
        self.met = ""
        self._judging = False
        # What was ignored before us stays so, as under nohup; but not SIGINT, which shells have
        # ignored by what they start in the background: functions interrupt themselves with it.
        heard = [number for number in END if signal.getsignal(number) != signal.SIG_IGN]
        self._numbers = [*heard, signal.SIGINT]
        self._mask = local()
        self.listen()
        os.register_at_fork(
            before=self._hold, after_in_parent=self._release, after_in_child=self._forget
        )

    def listen(self) -> None:
        """Hear signals, whatever a function has made of them."""
        for number in self._numbers:
            signal.signal(number, self._hear)

    def begin(self) -> None:
        """A verdict is under way."""
        self.listen()
        self.met = ""
        self._judging = True

    def end(self) -> None:
        """No verdict is under way."""
        self._judging = False

    def _hear(self, number: int, _: FrameType | None) -> None:
        if not self._judging:
            return
        self.met = signal.Signals(number).name
        # Graders bound their own time by interrupting themselves: it is for them to catch.
        if number == signal.SIGINT:
            raise KeyboardInterrupt

    def _hold(self) -> None:
        # A signal for a child that has not yet forgotten our handler would be lost.
        self._mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.before)

    def _forget(self) -> None:
        """Processes that a function forks end of signals, as any do: it may count on that."""
        for number in self._numbers:
            if signal.getsignal(number) == self._hear:
                with suppress(ValueError):  # not the main thread of the child
                    usual = signal.SIG_DFL if number in END else signal.default_int_handler
                    signal.signal(number, usual)
        self._release()
