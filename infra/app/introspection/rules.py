"""By which rules something stands out in how an agent plays. Pure.

Each rule says in its docstring what it takes, and docs/introspect.md says it to people.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from odradek.infra.app.introspection.episodes import AgentEpisode
from odradek.infra.app.introspection.lines import clipped
from odradek.infra.app.introspection.suggestions import (
    Shown,
    Suggestion,
    evidence_of,
    strongest,
)
from odradek.infra.app.introspection.tools import CalledTool, failing_runs

SLOW_SHARE: Final = 0.5
"""Of the time of the episodes that call a tool, its share from which on it is slow."""
SLOW_S: Final = 1.0
"""And its mean wait, in seconds."""
FEW: Final = 3
"""Fewer calls, or attempts, prove nothing."""
RETRIED_SHARE: Final = 0.05
"""Of calls, or samples, from which on retries are many."""
FAILURES: Final = 3
"""An equal call that fails so often in a row is repeated."""
LONG_TURNS: Final = 8
"""A conversation of fewer turns has no ever longer prompts."""
GROWN_TOKENS: Final = 8000
"""Tokens that the last prompt of a conversation has more than its first."""
GROWN_TIMES: Final = 2.0
"""How many times its first prompt its last one is."""


def suggestions(episodes: Sequence[AgentEpisode]) -> tuple[Suggestion, ...]:
    """What stands out in episodes: what most of them show comes first."""
    rules: tuple[Callable[[Sequence[AgentEpisode]], Iterable[Suggestion]], ...] = (
        _slow_tools,
        _repeated_failures,
        _loops,
        _longer_prompts,
        _retried_calls,
        _attempts,
    )
    raised = [one for rule in rules for one in rule(episodes)]
    return tuple(sorted(raised, key=lambda one: (-one.episodes / one.of, one.kind, one.subject)))


def _waits(uses: Iterable[CalledTool]) -> dict[tuple[str, str], list[CalledTool]]:
    """Answered calls by where they were asked for and answered: those made together wait once."""
    together: dict[tuple[str, str], list[CalledTool]] = defaultdict(list)
    for use in uses:
        if use.wait_s is not None:
            together[use.at, use.answered_at].append(use)
    return together


def _slow_tools(episodes: Sequence[AgentEpisode]) -> Iterator[Suggestion]:
    """A tool that takes half of its episodes' time: `FEW` calls, with a mean of `SLOW_S`."""
    waited: dict[str, list[tuple[AgentEpisode, CalledTool]]] = defaultdict(list)
    run_s: dict[str, float] = defaultdict(float)
    for episode in episodes:
        if not episode.run_s:
            continue
        waits = _waits(episode.tools)
        for name in {use.name for uses in waits.values() for use in uses}:
            run_s[name] += episode.run_s
            for uses in waits.values():
                use = next((use for use in uses if use.name == name), None)
                if use is not None:
                    waited[name].append((episode, use))
    for name, listed in waited.items():
        seconds = sum(use.wait_s or 0.0 for _, use in listed)
        share, mean = seconds / run_s[name], seconds / len(listed)
        if len(listed) < FEW or share < SLOW_SHARE or mean < SLOW_S:
            continue
        by_episode: dict[str, tuple[AgentEpisode, list[CalledTool]]] = {}
        for episode, use in listed:
            by_episode.setdefault(episode.episode_id, (episode, []))[1].append(use)
        yield Suggestion(
            kind="slow_tool",
            subject=name,
            text=f"{name} takes {min(share, 1.0):.0%} of the time of the episodes that call it: "
            f"{mean:.1f} s a call, {len(listed)} calls",
            advice="make it faster, give it a time limit, or let the agent call it beside others",
            episodes=len(by_episode),
            of=len(episodes),
            evidence=strongest(_slow_episode(*pair) for pair in by_episode.values()),
        )


def _slow_episode(episode: AgentEpisode, uses: Sequence[CalledTool]) -> Shown:
    slowest = max(uses, key=lambda use: use.wait_s or 0.0)
    seconds = sum(use.wait_s or 0.0 for use in uses)
    what = f"waited {seconds:.1f} s in {len(uses)} calls, longest for {slowest.arguments}"
    return seconds, evidence_of(episode, clipped(what), slowest.at, slowest.answered_at)


def _repeated_failures(episodes: Sequence[AgentEpisode]) -> Iterator[Suggestion]:
    """An equal call of a tool that failed `FAILURES` times in a row in an episode."""
    shown: dict[str, dict[str, Shown]] = defaultdict(dict)
    counts: dict[str, int] = defaultdict(int)
    for episode in episodes:
        for run in failing_runs(episode.tools):
            if len(run) < FAILURES:
                continue
            name, last = run[0].name, run[-1]
            counts[name] += len(run) - 1
            what = clipped(f"{len(run)} times {last.failure}: {last.arguments}")
            mine = float(len(run)), evidence_of(episode, what, run[0].at, last.answered_at)
            known = shown[name].get(episode.episode_id)
            if known is None or known[0] < mine[0]:
                shown[name][episode.episode_id] = mine
    for name, by_episode in shown.items():
        yield Suggestion(
            kind="repeated_failing_call",
            subject=name,
            text=f"{name} is called again just as it failed before: {counts[name]} calls in vain",
            advice="let its error say what to do instead, or end the attempt when a call comes "
            "again unchanged",
            episodes=len(by_episode),
            of=len(episodes),
            evidence=strongest(by_episode.values()),
        )


def _loops(episodes: Sequence[AgentEpisode]) -> Iterator[Suggestion]:
    """A conversation that goes round, unless its calls are those that fail again and again."""
    shown: list[Shown] = []
    turns = 0
    for episode in episodes:
        failing = {run[0].digest for run in failing_runs(episode.tools) if len(run) >= FAILURES}
        mine = [loop for loop in episode.loops if not failing & set(loop.digests)]
        if not mine:
            continue
        turns += sum((loop.rounds - 1) * loop.period for loop in mine)
        longest = max(mine, key=lambda loop: loop.rounds * loop.period)
        what = f"{longest.rounds} times the same {longest.period} turns: {longest.quoted}"
        shown.append(
            (
                float(longest.rounds * longest.period),
                evidence_of(episode, clipped(what), *longest.places),
            )
        )
    if shown:
        yield Suggestion(
            kind="loop",
            text=f"conversations go round: {turns} turns say again what was said and answered",
            advice="end the attempt when nothing new comes, or reward it less",
            episodes=len(shown),
            of=len(episodes),
            evidence=strongest(shown),
        )


def _longer_prompts(episodes: Sequence[AgentEpisode]) -> Iterator[Suggestion]:
    """A conversation of `LONG_TURNS` whose prompts grew at every turn.

    Its last prompt has `GROWN_TOKENS` more than its first, and is `GROWN_TIMES` as long.
    """
    shown: list[Shown] = []
    for episode in episodes:
        prompts = episode.prompts
        if len(prompts) < LONG_TURNS or any(
            later <= earlier for earlier, later in pairwise(prompts)
        ):
            continue
        first, last = prompts[0], prompts[-1]
        if last - first >= GROWN_TOKENS and last >= GROWN_TIMES * first:
            what = f"from {first} to {last} tokens in {len(prompts)} turns"
            if heaviest := _heaviest(episode.tools):
                what += f"; {heaviest}"
            shown.append((float(last - first), evidence_of(episode, what, *episode.prompt_places)))
    if shown:
        yield Suggestion(
            kind="ever_longer_prompts",
            text="prompts grow at every turn, and nothing shortens them",
            advice="shorten results of tools, leave out old ones, or compact the conversation",
            episodes=len(shown),
            of=len(episodes),
            evidence=strongest(shown),
        )


def _heaviest(uses: Iterable[CalledTool]) -> str:
    """The tool whose results have most characters."""
    characters: dict[str, int] = defaultdict(int)
    for use in uses:
        characters[use.name] += use.result_chars
    total = sum(characters.values())
    if not total:
        return ""
    name = max(characters, key=lambda name: (characters[name], name))
    return f"{characters[name] / total:.0%} of all results of tools are of {clipped(name)}"


def _retried_calls(episodes: Sequence[AgentEpisode]) -> Iterator[Suggestion]:
    """`RETRIED_SHARE` of the calls, and `FEW` or more, of which the client says that it retries."""
    shown: list[Shown] = []
    calls = retried = 0
    for episode in episodes:
        again = [call for call in episode.calls if call.retry]
        calls += len(episode.calls)
        retried += len(again)
        if again:
            what = f"{len(again)} of {len(episode.calls)} calls"
            shown.append((float(len(again)), evidence_of(episode, what, again[0].at, again[-1].at)))
    if retried >= FEW and retried >= RETRIED_SHARE * calls:
        yield Suggestion(
            kind="retries",
            subject="calls",
            text=f"clients send {retried} of {calls} calls again",
            advice="look at the errors of calls, and give clients a longer time limit or engines "
            "fewer calls at once",
            episodes=len(shown),
            of=len(episodes),
            evidence=strongest(shown),
        )


def _attempts(episodes: Sequence[AgentEpisode]) -> Iterator[Suggestion]:
    """`RETRIED_SHARE` of the attempts, and `FEW` or more, that another one had to follow."""
    lost = [episode for episode in episodes if episode.retry]
    if len(lost) < FEW or len(lost) < RETRIED_SHARE * len(episodes):
        return
    yield Suggestion(
        kind="retries",
        subject="attempts",
        text=f"{len(lost)} of {len(episodes)} attempts were lost, and others followed",
        advice="look at hosts and engines: agents are not to blame for what is tried again",
        episodes=len(lost),
        of=len(episodes),
        evidence=strongest(
            (episode.closed_at, evidence_of(episode, clipped(f"{episode.outcome} {episode.error}")))
            for episode in lost
        ),
    )
