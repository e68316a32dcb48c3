"""The one table of alarms: what is wrong, when, and what to do. Prometheus' rules are made from it.

Thresholds come from the run itself: a process stands still if it takes three times as long as
usual, a mismatch jumps if it is ten times its own mean. Windows are multiples of the usual time of
a step. Shares are the only fixed numbers.
"""

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Final, Literal

from msgspec import Struct

from odradek.infra.runtime import metrics
from odradek.infra.runtime.metrics import Metric

LEAST_S: Final = 10.0
"""No alarm is raised earlier, however fast a run is."""
TIMES: Final = 3
"""Of usual intervals, after which something stands still."""
STEPS: Final = 10
"""Steps over which shares and means are taken."""
SCRAPES: Final = 4
"""Scrapes that a window must hold for a rate."""
JUMP: Final = 10
"""Times the usual, that something may be."""
SHARE: Final = 0.2
"""Of what may go wrong."""
MOST: Final = 0.8
"""Of groups that may be equal."""

Severity = Literal["critical", "warning"]


class Window(Struct, frozen=True):
    """Times of a run, in seconds, by which its rules are made."""

    step_s: float
    """Usual time from one step to the next."""
    scrape_s: float = 15.0
    """Prometheus' scrape interval."""

    @property
    def short(self) -> str:
        """For counts of what should not be there."""
        return _duration(max(TIMES * self.step_s, SCRAPES * self.scrape_s, LEAST_S))

    @property
    def long(self) -> str:
        """For shares and means of late."""
        return _duration(max(STEPS * self.step_s, SCRAPES * self.scrape_s, LEAST_S))

    @property
    def past(self) -> str:
        """For what is usual, which `long` is compared with."""
        return _duration(STEPS * max(STEPS * self.step_s, SCRAPES * self.scrape_s, LEAST_S))

    @property
    def wait(self) -> str:
        """How long something must hold before it is an alarm."""
        return _duration(max(LEAST_S, self.scrape_s))


class Alarm(Struct, frozen=True):
    """One row of the table."""

    name: str
    about: str
    advice: str
    rule: Callable[[Window], str]
    """PromQL that gives a series for each thing that is wrong."""
    uses: tuple[Metric, ...]
    severity: Severity = "warning"
    waits: bool = True
    """Whether it must hold for a while."""


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))}s"


def _share(metric: Metric, chosen: str, window: str, *, suffix: str = "") -> str:
    """The share of a counter's increase that labels choose."""
    name = metric.prometheus + suffix
    return f"sum(rate({name}{{{chosen}}}[{window}])) / sum(rate({name}[{window}]))"


def _step(name: str) -> str:
    return f'{metrics.STEP_METRIC.prometheus}{{metric="{name}"}}'


def _mean_s(metric: Metric, window: str, offset: str = "") -> str:
    """The mean of a histogram."""
    name, at = metric.prometheus, f" offset {offset}" if offset else ""
    return f"sum(rate({name}_sum[{window}]{at})) / sum(rate({name}_count[{window}]{at}))"


ALARMS: Final = (
    Alarm(
        "ProcessStandsStill",
        "{{ $labels.process }} has records to do and finishes none",
        "look at its log; `odradek lag` names what waits, `odradek verify` what is open",
        lambda _: (
            f"{metrics.LAG_IDLE.prometheus} > {TIMES} * {metrics.LAG_USUAL.prometheus} "
            f"and {metrics.LAG_USUAL.prometheus} > 0 "
            f"and {metrics.LAG_IDLE.prometheus} > {LEAST_S:g}"
        ),
        (metrics.LAG_IDLE, metrics.LAG_USUAL),
        "critical",
        waits=False,
    ),
    Alarm(
        "ProcessAway",
        "{{ $labels.process }} does not serve",
        "the end of its log in .odradek/logs says why",
        lambda _: f"{metrics.READY.prometheus} == 0",
        (metrics.READY,),
        "critical",
    ),
    Alarm(
        "ProcessRestarts",
        "a process ends and is started again and again",
        "the end of its log says why; the supervisor goes on trying",
        lambda at: f"delta({metrics.RESTARTS.prometheus}[{at.long}]) >= 2",
        (metrics.RESTARTS,),
        "critical",
        waits=False,
    ),
    Alarm(
        "CallsFail",
        "more than a fifth of the model calls fail",
        "the code of odradek.calls.failed says whether engines are away, slow or broken",
        lambda at: (
            _share(metrics.CALL_S, 'error_type!=""', at.long, suffix="_count") + f" > {SHARE}"
        ),
        (metrics.CALL_S,),
        "critical",
    ),
    Alarm(
        "CallsSlow",
        "model calls take more than three times as long as before",
        "engines are overloaded or lag: `odradek_calls_active`, and the engine's own metrics",
        lambda at: (
            f"{_mean_s(metrics.CALL_S, at.long)} "
            f"> {TIMES} * ({_mean_s(metrics.CALL_S, at.past, at.long)})"
        ),
        (metrics.CALL_S,),
    ),
    Alarm(
        "EpisodesAborted",
        "more than a fifth of the episodes did not complete",
        "the outcome says why; `odradek query` lists them",
        lambda at: _share(metrics.EPISODES, 'outcome!="completed"', at.long) + f" > {SHARE}",
        (metrics.EPISODES,),
    ),
    Alarm(
        "SamplesExcluded",
        "samples are missing in their batches ({{ $labels.reason }})",
        "the reason says whose fault it is: docs/design.md, outcomes",
        lambda at: (
            f"sum by (reason) (rate({metrics.EXCLUSIONS.prometheus}[{at.long}])) "
            f"> {SHARE} * sum(rate({metrics.EPISODES.prometheus}[{at.long}]))"
        ),
        (metrics.EXCLUSIONS, metrics.EPISODES),
    ),
    Alarm(
        "GroupsEqual",
        "nearly all groups have equal rewards, so nothing is learned",
        "tasks are too easy or too hard, or a judge gives one number: `odradek show batch`",
        lambda at: _share(metrics.BATCHES, 'equal="true"', at.long) + f" > {MOST}",
        (metrics.BATCHES,),
    ),
    Alarm(
        "RepliesCut",
        "more than a fifth of the rows have replies that were cut by length",
        "a higher max_tokens, or a shorter task",
        lambda _: f"{_step('truncated')} / on () {_step('rows')} > {SHARE}",
        (metrics.STEP_METRIC,),
    ),
    Alarm(
        "RowsStale",
        "rows are refused because their tokens are too old",
        "fewer open groups, or a higher max_staleness",
        lambda at: f"increase({metrics.STALE.prometheus}[{at.long}]) > 0",
        (metrics.STALE,),
    ),
    Alarm(
        "MismatchJumps",
        "engine and trainer disagree ten times as much as before",
        "another model, template or temperature on one side, or weights that were not loaded",
        lambda at: (
            f"{_step('mismatch_k3')} > {JUMP} * avg_over_time({_step('mismatch_k3')}[{at.past}])"
        ),
        (metrics.STEP_METRIC,),
        "critical",
        waits=False,
    ),
    Alarm(
        "EntropyCollapses",
        "the policy's entropy is a tenth of what it was",
        "a smaller learning rate, or a KL penalty; `odradek show step` shows what it repeats",
        lambda at: f"{_step('entropy')} < max_over_time({_step('entropy')}[{at.past}]) / {JUMP}",
        (metrics.STEP_METRIC,),
    ),
    Alarm(
        "StepsSkipped",
        "a step came to no number and moved nothing",
        "its rows are in the ledger as non_finite; after three in a row the trainer ends",
        lambda at: f'increase({metrics.STEPS.prometheus}{{result="skipped"}}[{at.long}]) > 0',
        (metrics.STEPS,),
        "critical",
        waits=False,
    ),
    Alarm(
        "DeadLetters",
        "records were put aside: {{ $labels.topic }}, {{ $labels.reason }}",
        "`odradek dlq list` shows where and why",
        lambda at: f"increase({metrics.DEAD_LETTERS.prometheus}[{at.short}]) > 0",
        (metrics.DEAD_LETTERS,),
        waits=False,
    ),
    Alarm(
        "CaptureGaps",
        "turns or episodes are not whole in the log",
        "look for 503s of the proxy and turns over 16 MB",
        lambda at: f"increase({metrics.CAPTURE_GAPS.prometheus}[{at.short}]) > 0",
        (metrics.CAPTURE_GAPS,),
        "critical",
        waits=False,
    ),
)
"""In the order of how much they matter."""


def usual_step(times: list[float]) -> float | None:
    """The usual time from one step to the next.

    Args:
        times: When steps were made, in seconds, oldest first.

    Returns:
        None if there are fewer than two steps.
    """
    gaps = [after - before for before, after in pairwise(times)]
    return median(gaps) if gaps else None
