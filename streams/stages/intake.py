"""The intake: rewards, checked and copied onto the one ordered story of their episode.

A forwarder without state. Because the assembler reads rewards from `rl.turns.v1` and not from a
topic of their own, there is no join of two topics, hence no order that a replay could change.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

from odradek.infra.bus import Record
from odradek.infra.runtime.reward_signatures import JudgeSettings, Verifier
from odradek.schemas.events import Reward
from odradek.schemas.topics import REWARDS, TURNS
from odradek.streams.settings import StreamsSettings
from odradek.streams.stage import DeadLetter, Output, Stage, StatelessFold, passed_on

HELP: Final = """Run the intake: rewards of rl.rewards.v1 are checked and copied to rl.turns.v1.

Who may judge what: ODRADEK_INTAKE_SOURCES='{"game": ["agent:*"]}' names, for a component,
patterns of allowed sources. A component that is not named may be judged by anyone. A source's
name is a claim: ODRADEK_JUDGE_KEYS='{"agent:*": "KEY"}' has its rewards signed.
"""
"""What `--help` of its verb says."""

Sources = Mapping[str, Sequence[str]]


class Intake(StatelessFold):
    """Checks rewards of one partition.

    Args:
        sources: Patterns (as of file names) of the sources that may judge a component. A
            component that is not named here may be judged by anyone who can write the topic.
        verifier: Knows which sources must sign. A source's name alone is a claim.
    """

    def __init__(self, sources: Sources | None = None, verifier: Verifier | None = None) -> None:
        super().__init__()
        self._sources = dict(sources or {})
        self._verifier = verifier or Verifier()

    def feed(self, record: Record, event: Reward) -> Sequence[Output]:
        """See `Fold`."""
        if record.key != event.episode_id:
            return (DeadLetter("wrong_key", "the record's key is not its episode_id"),)
        allowed = self._sources.get(event.component)
        if allowed is not None and not any(
            fnmatchcase(event.source, pattern) for pattern in allowed
        ):
            return (
                DeadLetter(
                    "source_not_allowed",
                    f"its source may not judge its component; allowed: {list(allowed)}",
                ),
            )
        if fault := self._verifier.fault(event.source, record.value, record.headers):
            return (DeadLetter(fault, "its source signs what it says: ODRADEK_JUDGE_KEYS"),)
        return (passed_on(TURNS, record, event),)


def intake(sources: Sources | None = None, verifier: Verifier | None = None) -> Stage:
    """The stage, with its rules of who may judge what and who must sign."""
    return Stage(
        name="intake",
        source=REWARDS,
        kind=Reward,
        sinks=(TURNS,),
        fold=partial(Intake, sources, verifier),
        ticks=False,
    )


def of_settings(settings: StreamsSettings) -> Stage:
    """The stage with the rules that settings name, and the keys with which judges sign."""
    return intake(settings.sources, Verifier.of(JudgeSettings()))
