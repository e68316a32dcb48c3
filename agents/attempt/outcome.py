"""Outcomes from an agent's exception or exit code: the agent's failure, or ours."""

import signal
from typing import Final

from odradek.agents.attempt.attempt import Ending
from odradek.agents.errors import AskLost
from odradek.agents.rollout import UpstreamUnavailable
from odradek.schemas.events import Outcome

SDKS: Final = frozenset({"openai", "anthropic"})
UNREACHED: Final = frozenset({"APIConnectionError", "APITimeoutError", "InternalServerError"})
"""Classes of the model SDKs that mean: the model could not be reached, or answered 5xx.

They are known by name, so that hosts need neither SDK."""
EX_TEMPFAIL: Final = 75
"""Exit code of sysexits.h: a program that could not reach its model may say so with it."""

ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that end a service; they may go to all of its processes at once."""
SHELL: Final = 128
"""A shell whose program died of a signal exits with this plus the signal's number."""


class RunnerEnded(Exception):
    """A runner knows the verdict."""

    def __init__(self, verdict: Ending) -> None:
        super().__init__(verdict.error)
        self.verdict = verdict


def judge(error: BaseException) -> Ending:
    """The verdict on an agent that raised."""
    if isinstance(error, RunnerEnded):
        return error.verdict
    text = f"{type(error).__name__}: {error}"[:500]
    if _unreached(error):
        return Ending(outcome=Outcome.UPSTREAM_FAILED, error=text)
    return Ending(outcome=Outcome.FAILED, error=text)


def judge_exit(code: int, tail: str) -> Ending:
    """The verdict on a program's exit code; `tail` is the end of what it wrote to stderr."""
    if code == 0:
        return Ending(outcome=Outcome.COMPLETED)
    text = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    text += f": {tail}" if tail else ""
    outcome = Outcome.UPSTREAM_FAILED if code == EX_TEMPFAIL else Outcome.FAILED
    signalled = -code in ENDING or code - SHELL in ENDING
    return Ending(outcome=outcome, error=text, signalled=signalled)


def _unreached(error: BaseException) -> bool:
    if isinstance(error, UpstreamUnavailable | AskLost):
        return True
    if isinstance(error, BaseExceptionGroup):
        return any(_unreached(inner) for inner in error.exceptions)
    for kind in type(error).__mro__:
        if kind.__module__.split(".")[0] in SDKS and kind.__name__ in UNREACHED:
            return True
    return error.__cause__ is not None and _unreached(error.__cause__)
