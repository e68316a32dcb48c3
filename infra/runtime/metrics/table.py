"""The one table of all metrics: names, units, attributes, and which process has them.

Names are OpenTelemetry's where it has one: the conventions for GenAI, messaging and processes.
docs/metrics.md is made from here. Values of attributes are words from fixed sets, or names that the
operator gave (topics, groups, agents, components): never ids, never content.
"""

from typing import Final, Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]

SECONDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
"""Bounds that the GenAI conventions name for durations."""
TO_FIRST: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""The same for the time to the first chunk."""
TOKENS: Final = tuple(4**n for n in range(14))
"""The same for numbers of tokens."""
LONG: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Bounds for what an agent does, in seconds."""
BROKER: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bounds that the messaging conventions name, in seconds."""
UNITS: Final = {"s": "seconds", "By": "bytes"}
"""How Prometheus writes units of OpenTelemetry's."""


class Metric(Struct, frozen=True):
    """One row of the table."""

    name: str
    """For OpenTelemetry."""
    about: str
    advice: str = ""
    """What to do when a counter increases that should stay at rest."""
    unit: str = ""
    """In UCUM, as OpenTelemetry has it; what is counted stands in braces."""
    attributes: tuple[str, ...] = ()
    of: str = "every process"
    """Which processes have it."""
    kind: Kind = "counter"
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def prometheus(self) -> str:
        """Its name for Prometheus, of a histogram without `_bucket`, `_sum` and `_count`."""
        name = self.name.replace(".", "_")
        unit = UNITS.get(self.unit, "")
        if unit and not name.endswith(f"_{unit}"):
            name += f"_{unit}"
        return f"{name}_total" if self.kind == "counter" else name


# Counters of trust: they should stay at rest.

CAPTURE_GAPS: Final = Metric(
    "odradek.capture.gaps",
    "turns or episodes of which a part is not in the log",
    "their episodes are excluded as incomplete; look for 503s of the proxy and turns over 16 MB",
    attributes=("where",),
    of="proxy, assembler",
)
EXPIRED: Final = Metric(
    "odradek.episodes.expired",
    "episodes and samples that were closed because their deadline had passed",
    "is a host, a judge or the dispatcher down? `odradek verify` names what is open",
    attributes=("outcome",),
    of="assembler, grouper",
)
UNMATCHED: Final = Metric(
    "odradek.records.unmatched",
    "records about an episode or a group that is closed or unknown, or that come second",
    "a few after a crash are harmless; many mean that something writes late",
    attributes=("topic", "reason"),
    of="assembler, grouper",
)
DEAD_LETTERS: Final = Metric(
    "odradek.dead_letters",
    "records put aside",
    "`odradek dlq list` shows where and why",
    attributes=("topic", "reason"),
)
STALE: Final = Metric(
    "odradek.rows.stale",
    "rows refused because their tokens are too old",
    "fewer open groups, or a higher max_staleness",
    of="trainer",
)
UNUSABLE: Final = Metric(
    "odradek.rows.unusable",
    "rows refused because their numbers would ruin the weights",
    "the reason says whether log probabilities, rewards or the step itself were no numbers; "
    "`odradek tail rl.steps.v1` names their episodes",
    attributes=("reason",),
    of="trainer",
)
DUPLICATES: Final = Metric(
    "odradek.duplicates.dropped",
    "repeats that changed nothing",
    "harmless; a steady stream means that something sends everything twice",
    attributes=("stage",),
    of="intake, assembler, grouper, agent",
)
SKIPPED: Final = Metric(
    "odradek.records.skipped",
    "records that a reader passed over because it could not use them",
    "who writes to that topic? `odradek tail` shows them",
    attributes=("topic", "reason"),
)
REFUSED: Final = Metric(
    "odradek.calls.refused",
    "requests that the proxy answered with a 4xx of its own",
    "the code says which limit, token or field; the caller was told, too",
    attributes=("code",),
    of="proxy",
)
FAILED: Final = Metric(
    "odradek.calls.failed",
    "calls to which no engine gave an answer that can be used",
    "the code says whether engines were away, slow, broke off, or said too much",
    attributes=("code",),
    of="proxy",
)
TRUST: Final = (
    CAPTURE_GAPS, EXPIRED, UNMATCHED, DEAD_LETTERS, STALE, UNUSABLE, DUPLICATES, SKIPPED, REFUSED,
    FAILED,
)  # fmt: skip
"""Counters that should stay at rest: each says so in the log when it moves."""

# Golden signals.

CALL_S: Final = Metric(
    "gen_ai.client.operation.duration",
    "model calls, from the request to the end of the reply in the log",
    unit="s",
    attributes=("gen_ai.operation.name", "error.type"),
    of="proxy",
    kind="histogram",
    bounds=SECONDS,
)
FIRST_CHUNK_S: Final = Metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "streamed model calls: time until the first token was there",
    unit="s",
    attributes=("gen_ai.operation.name",),
    of="proxy",
    kind="histogram",
    bounds=TO_FIRST,
)
TOKEN_USAGE: Final = Metric(
    "gen_ai.client.token.usage",
    "tokens of a turn: its prompt (`input`) and its reply (`output`)",
    unit="{token}",
    attributes=("gen_ai.operation.name", "gen_ai.token.type"),
    of="proxy",
    kind="histogram",
    bounds=TOKENS,
)
TURNS: Final = Metric("odradek.turns", "turns that the log has taken", unit="{turn}", of="proxy")
CALLS_ACTIVE: Final = Metric(
    "odradek.calls.active", "model calls under way", unit="{call}", of="proxy", kind="gauge"
)
CONSUMED: Final = Metric(
    "messaging.client.consumed.messages",
    "records read as a member of a consumer group",
    unit="{message}",
    attributes=("messaging.destination.name", "messaging.consumer.group.name"),
    of="dispatcher, agent, intake, assembler, grouper, reward",
)
SENT: Final = Metric(
    "messaging.client.sent.messages",
    "records that the broker has acknowledged",
    unit="{message}",
    attributes=("messaging.destination.name",),
)
COMMIT_S: Final = Metric(
    "messaging.client.operation.duration",
    "transactions, from their begin to their commit",
    unit="s",
    attributes=("messaging.operation.name",),
    of="dispatcher, agent, intake, assembler, grouper, sampler",
    kind="histogram",
    bounds=BROKER,
)
STORIES: Final = Metric(
    "odradek.stories.open",
    "episodes or groups that a stage holds open",
    unit="{story}",
    attributes=("stage",),
    of="assembler, grouper",
    kind="gauge",
)
EPISODES: Final = Metric(
    "odradek.episodes",
    "episodes written, by how they ended",
    unit="{episode}",
    attributes=("outcome",),
    of="assembler",
)
BATCHES: Final = Metric(
    "odradek.batches",
    "groups closed; equal if their advantages are all 0",
    unit="{batch}",
    attributes=("purpose", "equal"),
    of="grouper",
)
EXCLUSIONS: Final = Metric(
    "odradek.exclusions",
    "samples that are not in their batch, by reason",
    unit="{sample}",
    attributes=("reason",),
    of="grouper",
)
ATTEMPT_S: Final = Metric(
    "gen_ai.invoke_agent.duration",
    "attempts, from their opening to their end; `error.type` is the outcome of one that did not "
    "complete",
    unit="s",
    attributes=("gen_ai.agent.name", "error.type"),
    of="agent",
    kind="histogram",
    bounds=LONG,
)
ATTEMPTS_ACTIVE: Final = Metric(
    "odradek.attempts.active",
    "attempts that are played, or wait for a place",
    unit="{attempt}",
    attributes=("gen_ai.agent.name", "state"),
    of="agent",
    kind="gauge",
)
GROUPS_OUT: Final = Metric(
    "odradek.groups.out",
    "groups that are out: sent and not passed",
    unit="{group}",
    attributes=("purpose",),
    of="dispatcher",
    kind="gauge",
)
TASKS_WAITING: Final = Metric(
    "odradek.tasks.waiting",
    "tasks that were read and wait for credit",
    unit="{task}",
    attributes=("purpose",),
    of="dispatcher",
    kind="gauge",
)
VERDICT_S: Final = Metric(
    "odradek.verdict.duration",
    "verdicts of a reward function",
    unit="s",
    attributes=("component", "error.type"),
    of="reward",
    kind="histogram",
    bounds=SECONDS,
)
STEPS: Final = Metric(
    "odradek.steps",
    "entries of the ledger: `optimized`, `skipped`, or batches `passed` without a step",
    unit="{step}",
    attributes=("result",),
    of="trainer",
)
REFUSALS: Final = Metric(
    "odradek.refusals",
    "batches, episodes and rows that the trainer passed without using them, by reason",
    unit="{refusal}",
    attributes=("reason",),
    of="trainer",
)
STEP_METRIC: Final = Metric(
    "odradek.step.metric",
    "the last step's [metrics](watch-a-run.md#what-the-metrics-mean), by their names in the ledger",
    attributes=("metric",),
    of="trainer",
    kind="gauge",
)
POLICY_VERSION: Final = Metric(
    "odradek.policy.version",
    "version of the weights in force",
    unit="{version}",
    of="trainer",
    kind="gauge",
)
LAG: Final = Metric(
    "odradek.lag",
    "records that a process has still to do, as `odradek lag` says",
    unit="{record}",
    attributes=("process", "topic"),
    of="up, lag --follow",
    kind="gauge",
)
LAG_IDLE: Final = Metric(
    "odradek.lag.idle",
    "for how long a process has finished nothing although it has something to do",
    unit="s",
    attributes=("process", "topic"),
    of="up, lag --follow",
    kind="gauge",
)
LAG_USUAL: Final = Metric(
    "odradek.lag.usual",
    "the usual time between two things that a process finishes, of late",
    unit="s",
    attributes=("process", "topic"),
    of="up, lag --follow",
    kind="gauge",
)
RESTARTS: Final = Metric(
    "odradek.process.restarts",
    "how often a process was started again",
    unit="{restart}",
    attributes=("process",),
    of="up",
    kind="gauge",
)
READY: Final = Metric(
    "odradek.process.ready",
    "1 for a process that serves, 0 for any other",
    attributes=("process",),
    of="up",
    kind="gauge",
)
CPU_S: Final = Metric(
    "process.cpu.time",
    "CPU time of the process",
    unit="s",
    attributes=("cpu.mode",),
)
MEMORY: Final = Metric(
    "process.memory.usage", "resident memory of the process", unit="By", kind="gauge"
)
UPTIME: Final = Metric(
    "process.uptime", "how long the process has been running", unit="s", kind="gauge"
)
SIGNALS: Final = (
    CALL_S, FIRST_CHUNK_S, TOKEN_USAGE, TURNS, CALLS_ACTIVE, ATTEMPT_S, ATTEMPTS_ACTIVE, GROUPS_OUT,
    TASKS_WAITING, EPISODES, STORIES, BATCHES, EXCLUSIONS, VERDICT_S, STEPS, REFUSALS, STEP_METRIC,
    POLICY_VERSION, LAG, LAG_IDLE, LAG_USUAL, RESTARTS, READY, CONSUMED, SENT, COMMIT_S, CPU_S,
    MEMORY, UPTIME,
)  # fmt: skip
"""What processes do, and how well."""
METRICS: Final = (*TRUST, *SIGNALS)
