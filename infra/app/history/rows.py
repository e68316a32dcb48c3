"""Batches and episodes as views, made by the trainer's own functions. Pure: no I/O, no clock."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from odradek.infra.app.history.views import BatchView, RowView, SampleView, TokensView
from odradek.schemas.arrays import unpack_floats
from odradek.schemas.events import Batch, Episode, Pointer, VersionSpan
from odradek.schemas.events import Sequence as TokenSequence
from odradek.streams.history.pointers import address_of, shown
from odradek.trainer.feed.children import worths
from odradek.trainer.feed.rows import EpisodeGroup, Row, comparison, rows_of
from odradek.trainer.feed.rules import RowRules, why_not
from odradek.trainer.feed.sampling import drawn_of
from odradek.trainer.feed.step_advantages import StepRules, step_advantages

Texts = Callable[[Sequence[int]], tuple[str, ...]]
"""Token ids as texts, one for each."""


def no_texts(ids: Sequence[int]) -> tuple[str, ...]:
    """Without a tokenizer."""
    del ids
    return ()


class BatchRows:
    """A batch with its episodes, and the rows that the trainer makes of them."""

    def __init__(
        self,
        address: str,
        written: float,
        group: EpisodeGroup,
        rules: RowRules,
    ) -> None:
        self.at = address
        self.group = group
        self._learning: dict[str, Any] = {
            "baseline": rules.baseline,
            "scale": rules.scale,
            "k": rules.pass_k,
            "shaping": rules.shaping,
        }
        self.rows = rows_of(group, **self._learning, weigh=rules.weigh, take=rules.take)
        self._written = written
        self._rules = rules
        self._sequences = [
            (pointer, number, sequence)
            for pointer, episode in group.episodes
            for number, sequence in enumerate(episode.sequences)
            if drawn_of(sequence, len(sequence.ids) // 4, rules.take).trained.any()
        ]

    def view(
        self,
        rows: Iterable[Row],
        *,
        refused: Mapping[tuple[str, int | None], str],
        staleness: Callable[[Row], int | None] = lambda _: None,
        texts: Texts = no_texts,
    ) -> BatchView:
        """The batch with some of its rows.

        Args:
            rows: Of `self.rows`, or those with advantages of their tokens.
            refused: Reasons by (episode, row); the row is None for a whole episode.
            staleness: Of a row that was used.
            texts: Of tokens.
        """
        batch = self.group.batch
        return BatchView(
            at=self.at,
            written=self._written,
            digest=batch.digest(),
            task_id=batch.task_id,
            item=batch.item,
            agent=batch.agent,
            purpose=batch.purpose,
            origin=batch.origin,
            samples=self._samples(refused),
            exclusions=tuple(
                {"sample": one.sample, "reason": one.reason, "episode_id": one.episode_id}
                for one in batch.exclusions
            ),
            rows=tuple(
                self._row(row, refused.get((row.episode_id, row.index), ""), staleness, texts)
                for row in rows
            ),
            why_not=why_not(batch, self._rules),
        )

    def _samples(self, refused: Mapping[tuple[str, int | None], str]) -> tuple[SampleView, ...]:
        worth = worths(self.group.batch, self.group.episodes, comparison(**self._learning))
        return tuple(
            SampleView(
                at=shown(address_of(pointer)),
                episode_id=pointer.episode_id,
                sample=pointer.sample,
                reward=pointer.reward,
                advantage=worth[pointer.episode_id].advantage,
                revision=pointer.revision,
                refused=refused.get((pointer.episode_id, None), ""),
            )
            for pointer in self.group.batch.episodes
        )

    def _row(
        self, row: Row, refused: str, staleness: Callable[[Row], int | None], texts: Texts
    ) -> RowView:
        pointer, number, sequence = self._sequences[row.index]
        return RowView(
            at=shown(address_of(pointer)),
            episode_id=row.episode_id,
            sample=pointer.sample,
            sequence=number,
            row=row.index,
            child=sequence.child,
            reward=row.reward,
            advantage=row.advantage,
            weight=row.weight,
            importance=row.importance,
            replayed=row.replayed,
            oldest=row.oldest,
            newest=row.newest,
            staleness=None if refused else staleness(row),
            refused=refused,
            turns=sequence.turn_ids,
            tokens=_tokens(row, sequence, texts),
        )


def with_step_advantages(
    batches: Sequence[tuple[BatchRows, Sequence[Row]]],
    rules: StepRules,
    refused: Callable[[Row], bool],
) -> list[tuple[BatchRows, Sequence[Row]]]:
    """The rows of a step with what their step makes of their advantages (see `step_advantages`).

    Rows that the step refused are none of it. KL in the reward is left out: it is on no topic.
    """
    if not rules.normalises:
        return list(batches)
    mine = [row for _, rows in batches for row in rows if not refused(row)]
    changed = iter(step_advantages(mine, rules))
    return [
        (batch, [row if refused(row) else next(changed) for row in rows]) for batch, rows in batches
    ]


def alone(pointer: Pointer, episode: Episode, rules: RowRules) -> BatchRows:
    """An episode that no batch holds: its rows, with an advantage of 0."""
    batch = Batch(task_id=episode.task_id, group_size=1, episodes=(pointer,))
    return BatchRows("", 0.0, EpisodeGroup(0, batch, ((pointer, episode),)), rules)


def completion_view(
    ids: npt.NDArray[np.integer[Any]],
    logprobs: bytes,
    versions: Iterable[VersionSpan],
    texts: Texts = no_texts,
) -> TokensView:
    """The sampled tokens of a turn."""
    n = len(ids)
    values = unpack_floats(logprobs).tolist() if logprobs else [None] * n
    return TokensView(
        ids=tuple(ids.tolist()),
        trained=(0,) * n,
        sampled=(1,) * n,
        logprobs=tuple(values),
        versions=_versions(versions, n),
        temperatures=(None,) * n,
        advantages=(None,) * n,
        texts=texts(ids.tolist()),
    )


def _tokens(row: Row, sequence: TokenSequence, texts: Texts) -> TokensView:
    n = len(row.ids)
    sampled = np.zeros(n, dtype=np.bool_)
    for span in sequence.spans:
        sampled[span.start : span.end] = True
    logprobs = np.full(n, np.nan)
    logprobs[sampled] = unpack_floats(sequence.logprobs)
    mask = row.mask.tolist()
    own = [row.advantage] * n if row.token_advantages is None else row.token_advantages.tolist()
    warm = [1.0] * n if row.temperatures is None else row.temperatures.tolist()
    return TokensView(
        ids=tuple(row.ids.tolist()),
        trained=tuple(map(int, mask)),
        sampled=tuple(map(int, sampled.tolist())),
        logprobs=_where(sampled, logprobs.tolist()),
        versions=_versions(sequence.versions, n),
        temperatures=_where(sampled, [round(value, 6) for value in warm]),
        advantages=_where(row.mask, own),
        texts=texts(row.ids.tolist()),
    )


def _where(mask: npt.NDArray[np.bool_], values: Sequence[float]) -> tuple[float | None, ...]:
    return tuple(value if on else None for on, value in zip(mask.tolist(), values, strict=True))


def _versions(spans: Iterable[VersionSpan], n: int) -> tuple[int | None, ...]:
    versions: list[int | None] = [None] * n
    for span in spans:
        versions[span.start : span.end] = [span.version] * (span.end - span.start)
    return tuple(versions)
