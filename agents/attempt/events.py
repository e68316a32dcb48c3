"""Events that a host writes about an episode: EpisodeOpened, EpisodeAborted and rewards."""

import time

import msgspec

from odradek.agents.attempt.attempt import Attempt, Ending
from odradek.agents.settings import AgentSettings
from odradek.infra.bus import OutgoingRecord
from odradek.infra.runtime.episode_tokens import Claims
from odradek.infra.runtime.reward_signatures import signed
from odradek.schemas import codec
from odradek.schemas.events import EpisodeAborted, EpisodeOpened, Event, Reward
from odradek.schemas.topics import REWARDS, TURNS


def opened(run: Attempt, agent: str, *, source: str) -> OutgoingRecord:
    """The record that begins an episode. A message of no task is recorded, but never grouped."""
    sample = run.sample
    return _entry(
        TURNS.name,
        EpisodeOpened(
            episode_id=run.episode_id,
            task_id=sample.task_id,
            agent=agent,
            sample=sample.sample,
            group_size=sample.group_size,
            attempt=run.attempt,
            last_attempt=run.last,
            purpose=sample.purpose,
            rewards=sample.rewards,
            failure_reward=sample.failure_reward,
            timeouts=sample.timeouts,
            item=sample.item,
            input=run.send.input,
            unattributed=run.send.sample is None,
            parent=sample.parent,
            message_id=run.send.message_id if sample.parent else "",
            own_weight=sample.own_weight,
            parent_weight=sample.parent_weight,
        ),
        run.episode_id,
        event_id=f"{run.episode_id}/episode_opened",
        source=source,
        traceparent=run.called.traceparent,
    )


def aborted(
    episode_id: str, verdict: Ending, *, retry: bool, source: str, traceparent: str | None = None
) -> OutgoingRecord:
    """The record that gives an episode up."""
    return _entry(
        TURNS.name,
        EpisodeAborted(
            episode_id=episode_id, reason=verdict.outcome, retry=retry, error=verdict.error
        ),
        episode_id,
        event_id=f"{episode_id}/episode_aborted",
        source=source,
        traceparent=traceparent,
    )


def reward(
    run: Attempt, component: str, value: float, explanation: str, *, agent: str, source: str
) -> OutgoingRecord:
    """The record of a reward, signed where the host has a judge's key."""
    entry = _entry(
        REWARDS.name,
        Reward(
            episode_id=run.episode_id,
            component=component,
            value=value,
            source=f"agent:{agent}",
            explanation=explanation,
        ),
        run.episode_id,
        event_id=f"{run.episode_id}/{component}/agent:{agent}",
        source=source,
        traceparent=run.called.traceparent,
    )
    headers = signed(entry.value or b"", entry.headers)
    return msgspec.structs.replace(entry, headers=headers)


def claims(run: Attempt, settings: AgentSettings, model: str) -> Claims:
    """The claims of the agent's token; it expires a minute after the run's deadline."""
    timeouts = run.sample.timeouts
    return Claims(
        trace=run.called.traceparent or "",
        sub=run.episode_id,
        scope="call",
        agent=settings.name,
        task_id=run.sample.task_id,
        model=model,
        sampling=run.sample.sampling,
        max_calls=settings.max_calls,
        max_tokens=settings.max_tokens,
        call_s=timeouts.call_s,
        exp=time.time() + timeouts.attempt_s + timeouts.seal_s + 60,
    )


def _entry(
    topic: str,
    event: Event,
    key: str,
    *,
    event_id: str,
    source: str,
    traceparent: str | None,
) -> OutgoingRecord:
    return OutgoingRecord(
        topic=topic,
        key=key,
        value=codec.encode(event),
        headers=codec.headers(
            event, source=source, subject=key, event_id=event_id, traceparent=traceparent
        ),
    )
