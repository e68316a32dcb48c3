"""Late rewards of a re-scoring: each completed conversation has its verdict, and no other one."""

from collections import defaultdict
from math import isclose

from odradek.schemas import events
from tests.chaos.verification import oracle
from tests.chaos.verification.log import Log
from tests.chaos.verification.verdict import Verdict

SOURCE = "/rescore/"
"""How the source of its rewards begins."""


def unscored(log: Log) -> set[str]:
    """The completed conversations that no verdict is of."""
    scored = {reward.episode_id for _, reward in log.revisions if reward.source.startswith(SOURCE)}
    return _wanted(log) - scored


def _wanted(log: Log) -> set[str]:
    return {
        heard.episode_id
        for _, heard in log.conversations
        if heard.outcome is events.Outcome.COMPLETED and not heard.parent
    }


def revisions(log: Log, verdict: Verdict) -> None:
    """A verdict that is written again is the same verdict: then it changes nothing."""
    wanted = _wanted(log)
    values: defaultdict[tuple[str, str], set[float]] = defaultdict(set)
    for _, reward in log.revisions:
        if reward.source.startswith(SOURCE):
            values[reward.episode_id, reward.component].add(reward.value)
    for episode in unscored(log):
        verdict.add("rescore_lost", f"episode {episode} was never judged anew")
    for (episode, component), found in values.items():
        if len(found) > 1:
            verdict.add("rescore_twice", f"episode {episode} has {len(found)} late {component}")
        right = any(isclose(value, oracle.rescored(episode)) for value in found)
        if episode not in wanted or component != oracle.LATE or not right:
            verdict.add("rescore", f"episode {episode} got {component} = {sorted(found)}")
    verdict.counts["rescored"] = len(values)
