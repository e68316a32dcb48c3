"""Episodes of an agent, counted. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from odradek.infra.app.introspection.episodes import AgentEpisode
from odradek.infra.app.introspection.report import (
    AgentReport,
    Distribution,
    ErrorRow,
    PromptRow,
    SuccessRate,
    ToolRow,
)
from odradek.infra.app.introspection.rules import suggestions
from odradek.infra.app.introspection.tools import CalledTool, failing_runs
from odradek.infra.app.session.evaluation_rates import wilson

NAMED: Final = 3
"""Places that a row of errors names."""


def introspect(
    agent: str,
    episodes: Iterable[AgentEpisode],
    *,
    threshold: float = 1.0,
    component: str = "",
) -> AgentReport:
    """A report of an agent's episodes.

    Args:
        agent: Its name.
        episodes: In any order; of those with one id the first counts.
        threshold: The least reward of a success.
        component: Whose value is held against it; empty: the reward.
    """
    every = list({one.episode_id: one for one in reversed(list(episodes))}.values())[::-1]
    samples = [one for one in every if not one.retry]
    whole = [one for one in every if one.whole]
    calls = [(one, call) for one in whole for call in one.calls]
    timed = [one for one in whole if one.run_s]
    run_s = sum(one.run_s or 0.0 for one in timed)
    rewarded = [one for one in samples if one.outcome.counts and one.reward is not None]
    prompts = sum(call.prompt_tokens for _, call in calls)
    cached = sum(call.cached_tokens for _, call in calls)
    return AgentReport(
        agent=agent,
        episodes=len(every),
        since=min((one.opened_at for one in every if one.opened_at), default=0.0),
        until=max((one.closed_at for one in every), default=0.0),
        without_turns=len(every) - len(whole),
        tasks=len({one.task_id for one in every}),
        outcomes=_counted(str(one.outcome) for one in samples),
        attempts=len(every) - len(samples),
        success=_success(samples, threshold, component),
        reward=Distribution.of(one.reward for one in rewarded if one.reward is not None),
        components=_components(samples),
        errors=_errors((one.error, one.at) for one in every),
        run_s=Distribution.of(one.run_s for one in whole if one.run_s is not None),
        model_share=sum(min(one.model_s, one.run_s or 0) for one in timed) / run_s
        if run_s
        else None,
        turns=Distribution.of(len(one.calls) for one in whole),
        calls=len(calls),
        call_s=Distribution.of(call.total_s for _, call in calls),
        ttft_s=Distribution.of(call.ttft_s for _, call in calls if call.ttft_s is not None),
        call_errors=_errors((call.error, call.at) for _, call in calls),
        retried=sum(call.retry for _, call in calls),
        gone=sum(call.gone for _, call in calls),
        beside=sum(call.beside for _, call in calls),
        finish_reasons=_counted(call.finish_reason for _, call in calls if call.finish_reason),
        prompt_tokens=Distribution.of(
            sum(call.prompt_tokens for call in one.calls) for one in whole
        ),
        completion_tokens=Distribution.of(
            sum(call.completion_tokens for call in one.calls) for one in whole
        ),
        cached_share=cached / prompts if prompts else None,
        prompts=_prompts(whole),
        tools=_tools(whole),
        versions=_versions(whole),
        suggestions=suggestions(every),
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _success(samples: Sequence[AgentEpisode], threshold: float, component: str) -> SuccessRate:
    values = [
        (one.task_id, value)
        for one in samples
        if one.outcome.counts
        and (value := one.components.get(component) if component else one.reward) is not None
    ]
    if not values:
        return SuccessRate(threshold=threshold, component=component)
    share = sum(value >= threshold for _, value in values) / len(values)
    low, high = wilson(share, len({task for task, _ in values}))
    return SuccessRate(
        threshold=threshold, component=component, of=len(values), value=share, low=low, high=high
    )


def _components(samples: Iterable[AgentEpisode]) -> dict[str, Distribution]:
    values: dict[str, list[float]] = {}
    for one in samples:
        for name, value in one.components.items():
            values.setdefault(name, []).append(value)
    return {name: Distribution.of(listed) for name, listed in sorted(values.items())}


def _errors(kinds: Iterable[tuple[str, str]]) -> tuple[ErrorRow, ...]:
    """Rows of errors, the commonest first."""
    places: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for kind, at in kinds:
        if kind:
            counts[kind] += 1
            named = places.setdefault(kind, [])
            if len(named) < NAMED and at not in named:
                named.append(at)
    return tuple(
        ErrorRow(kind=kind, n=n, places=tuple(places[kind])) for kind, n in counts.most_common()
    )


def _prompts(whole: Sequence[AgentEpisode]) -> tuple[PromptRow, ...]:
    """Of the first turn, the second, the fourth and so on: conversations grow evenly."""
    rows, turn = [], 1
    while lengths := [one.prompts[turn - 1] for one in whole if len(one.prompts) >= turn]:
        rows.append(PromptRow(turn, len(lengths), Distribution.of(lengths)))
        turn *= 2
    return tuple(rows)


def _tools(whole: Iterable[AgentEpisode]) -> tuple[ToolRow, ...]:
    uses: dict[str, list[CalledTool]] = {}
    episodes: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    for one in whole:
        episodes.update({use.name for use in one.tools})
        for run in failing_runs(one.tools):
            repeated[run[0].name] += len(run) - 1
        for use in one.tools:
            uses.setdefault(use.name, []).append(use)
    return tuple(
        ToolRow(
            name=name,
            episodes=episodes[name],
            calls=len(listed),
            failed=sum(bool(use.failure) for use in listed),
            failures=_counted(use.failure for use in listed if use.failure),
            repeated=repeated[name],
            unanswered=sum(not use.answered_at for use in listed),
            wait_s=Distribution.of(use.wait_s for use in listed if use.wait_s is not None),
            result_chars=sum(use.result_chars for use in listed),
        )
        for name, listed in sorted(uses.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _versions(whole: Iterable[AgentEpisode]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for one in whole:
        counts.update(one.versions)
    return dict(sorted(counts.items()))
