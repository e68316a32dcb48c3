"""Rows of tokens: an episode with its sequences. Pure."""

from typing import Any

from odradek.infra.app.datasets.preferences import stated
from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import Episode, Pointer, Sequence


def episode_row(batch: int, pointer: Pointer, episode: Episode) -> dict[str, Any]:
    """A row of `episodes`: what a trainer would see of an episode, before masks and advantages.

    Args:
        batch: Offset of its batch; -1 for one that is in none.
        pointer: As the batch has it: its reward counts.
        episode: The record.
    """
    return {
        "episode_id": episode.episode_id,
        "task_id": episode.task_id,
        "item": episode.item,
        "agent": episode.agent,
        "sample": episode.sample,
        "attempt": episode.attempt,
        "outcome": str(episode.outcome),
        "reward": stated(pointer.reward),
        "components": sorted(episode.components.items()),
        "batch": batch,
        "topic": pointer.topic,
        "partition": pointer.partition,
        "offset": pointer.offset,
        "digest": pointer.digest,
        "n_turns": episode.n_turns,
        "opened_at": episode.opened_at,
        "closed_at": episode.closed_at,
        "sequences": [_sequence(sequence) for sequence in episode.sequences],
    }


def _sequence(sequence: Sequence) -> dict[str, Any]:
    return {
        "ids": unpack_ids(sequence.ids).tolist(),
        "logprobs": unpack_floats(sequence.logprobs).tolist(),
        "spans": [
            {
                "start": span.start,
                "end": span.end,
                "temperature": span.temperature,
                "altered_by": span.altered_by,
                "truncated": span.truncated,
            }
            for span in sequence.spans
        ],
        "versions": [
            {"version": span.version, "start": span.start, "end": span.end}
            for span in sequence.versions
        ],
        "turn_ids": list(sequence.turn_ids),
        "child": sequence.child,
    }
