"""Settings of the streams' processes, from `ODRADEK_STREAMS_*`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from odradek.infra.runtime.settings import CheckedSettings, KafkaName, from_environment
from odradek.schemas.events import Timeouts
from odradek.schemas.topics import TURNS
from odradek.streams.errors import DeadlinesRefused


class StreamsSettings(CheckedSettings, BaseSettings):
    """Intake, assembler, grouper and reward services share these."""

    model_config = from_environment("ODRADEK_STREAMS_")

    driver: Literal["kafka", "faust"] = "kafka"
    """What carries a stage: Kafka transactions (exactly once), or Faust (at least once)."""
    instance: KafkaName | None = Field(default=None, validation_alias="ODRADEK_INSTANCE")
    """A name of this process that outlives restarts and that no other replica has: a restarted
    process comes back to its partitions at once, not after the session timeout."""
    sources: dict[str, list[str]] = Field(default={}, validation_alias="ODRADEK_INTAKE_SOURCES")
    """Component -> patterns of the sources that may judge it; others may be judged by anyone."""
    concurrency: int = Field(default=8, ge=1, validation_alias="ODRADEK_REWARD_CONCURRENCY")
    """How many conversations a reward service judges at once; a plain function gets as many worker
    processes at most."""
    max_attempts: int = Field(default=2, ge=1, validation_alias="ODRADEK_MAX_ATTEMPTS")
    """Attempts at a sample whose host or engine was lost through no fault of the agent."""
    timeouts: dict[str, float] = Field(default={}, validation_alias="ODRADEK_TASK_TIMEOUTS")
    """Deadlines of tasks that differ from the defaults, checked at start: {"attempt_s": 60}."""

    @property
    def deadlines(self) -> Timeouts:
        """Deadlines as tasks have them. Raises DeadlinesRefused for a name that is none."""
        unknown = sorted(self.timeouts.keys() - set(Timeouts.__struct_fields__))
        if unknown:
            names = ", ".join(Timeouts.__struct_fields__)
            raise DeadlinesRefused(f"no deadline is called {unknown[0]!r}; there are {names}")
        return Timeouts(**self.timeouts)


def check_deadlines(
    timeouts: Timeouts, max_attempts: int, retention_s: float = TURNS.retention_ms / 1000
) -> None:
    """Raise DeadlinesRefused unless deadlines fit into each other and into retention.

    call < run, and max_attempts x (run + seal wait) + reward wait < group < retention / 2: so a
    group outlives every attempt at its samples, and retention never deletes an open episode.
    """
    if timeouts.call_s >= timeouts.attempt_s:
        raise DeadlinesRefused(
            f"call_s {timeouts.call_s:g} must be below attempt_s {timeouts.attempt_s:g}: "
            "a run may need more than one call"
        )
    samples = max_attempts * (timeouts.attempt_s + timeouts.seal_s) + timeouts.reward_s
    if samples >= timeouts.group_s:
        raise DeadlinesRefused(
            f"group_s {timeouts.group_s:g} must be above {samples:g}: {max_attempts} attempts of "
            f"{timeouts.attempt_s:g} + {timeouts.seal_s:g} s and {timeouts.reward_s:g} s for "
            "rewards"
        )
    if timeouts.group_s >= retention_s / 2:
        raise DeadlinesRefused(
            f"group_s {timeouts.group_s:g} must be below half the retention of {TURNS.name} "
            f"({retention_s / 2:g} s)"
        )
