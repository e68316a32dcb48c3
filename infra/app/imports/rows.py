"""Rows of `odradek export data episodes`: tokens, log probabilities, versions and rewards. Pure.

Where a row stood (`batch`, `topic`, `partition`, `offset`, `digest`) is left out: it stands
elsewhere now. Everything else is kept, so an export of what was imported has the same rows.
"""

from typing import Any

import msgspec
from msgspec import Struct

from odradek.infra.app.imports.recording import Recording
from odradek.infra.app.imports.turns import LARGEST
from odradek.infra.errors import BadRecording
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import ChildEpisode, Episode, Outcome, Sequence, Span, VersionSpan

Object = dict[str, Any]


class _Span(Struct):
    start: int
    end: int
    temperature: float | None = None
    altered_by: str = ""
    truncated: bool = False


class _Versions(Struct):
    version: int
    start: int
    end: int


class _Sequence(Struct):
    ids: list[int]
    logprobs: list[float]
    spans: list[_Span]
    versions: list[_Versions] = []
    turn_ids: list[str] = []
    child: str = ""


class _Row(Struct):
    episode_id: str
    task_id: str
    agent: str
    sequences: list[_Sequence]
    item: str = ""
    sample: int = 0
    attempt: int = 1
    outcome: Outcome = Outcome.COMPLETED
    reward: float | None = None
    components: list[tuple[str, float]] = []
    n_turns: int = 0
    opened_at: float = 0.0
    closed_at: float = 0.0


def fits(record: Object) -> bool:
    """Whether a record looks like one of this format."""
    return {"episode_id", "task_id", "sequences"} <= record.keys()


def parse(record: Object) -> Recording:
    """The episode of a row. Raises BadRecording."""
    try:
        row = msgspec.convert(record, _Row)
        sequences = tuple(map(_sequence, row.sequences))
    except (msgspec.ValidationError, InvalidRecord, OverflowError) as error:
        raise BadRecording(f"it is no row of episodes: {error}") from None
    if not row.episode_id or not row.task_id:
        raise BadRecording("its episode_id or its task_id is empty")
    episode = Episode(
        episode_id=row.episode_id,
        task_id=row.task_id,
        agent=row.agent,
        sample=row.sample,
        group_size=0,
        attempt=row.attempt,
        item=row.item,
        outcome=row.outcome,
        reward=row.reward,
        components=dict(row.components),
        n_turns=row.n_turns,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        sequences=sequences,
        children=tuple(_children(row)),
    )
    return Recording(
        episode_id=row.episode_id, task_id=row.task_id, agent=row.agent, episode=episode
    )


def _sequence(sequence: _Sequence) -> Sequence:
    if any(abs(each) > LARGEST for each in sequence.logprobs):
        raise InvalidRecord("bad_array", "a log probability is beyond float32")
    return Sequence(
        ids=pack_ids(sequence.ids),
        logprobs=pack_floats(sequence.logprobs),
        spans=tuple(
            Span(span.start, span.end, span.temperature, span.altered_by, span.truncated)
            for span in sequence.spans
        ),
        versions=tuple(VersionSpan(v.version, v.start, v.end) for v in sequence.versions),
        turn_ids=tuple(sequence.turn_ids),
        child=sequence.child,
    )


def _children(row: _Row) -> list[ChildEpisode]:
    """The children that sequences name; a row does not say more of them."""
    names = dict.fromkeys(sequence.child for sequence in row.sequences if sequence.child)
    return [
        ChildEpisode(
            episode_id=name, parent=row.episode_id, agent=row.agent, reward=row.reward or 0.0
        )
        for name in names
    ]
