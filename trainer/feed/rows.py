"""Sequences of an episode become training rows. Pure numpy, no torch, no I/O.

A row is one linear run of tokens with a mask over those that the policy sampled. The assembler has
merged turns that continue each other, so a row usually holds a whole episode; where continuity
broke there are several rows, and every sampled token stands in exactly one of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import Batch, Episode, Pointer, Refusal
from odradek.schemas.events import Sequence as Tokens
from odradek.schemas.revisions import RevisionBook, revised_batch
from odradek.trainer.feed.advantages import PASS_K, advantages, fits
from odradek.trainer.feed.children import Compare, Numbers, worths
from odradek.trainer.feed.sampling import TAKE, Take, drawn_of
from odradek.trainer.feed.shaping import NO_SHAPING, LengthShaping

Weigh = Literal["episode", "row"]

LEAST_LOGPROB: Final = -50.0
"""Nobody samples a token as rare as 2e-22: what is lower is an engine's word for minus infinity."""
ROUNDING: Final = 1e-3
"""How far above 0 a log probability may come out: a softmax is a rounded sum."""
NON_FINITE: Final = "non_finite"
"""Why the rows of a step that came to no number are refused."""
NO_MEMORY: Final = "no_memory"
"""Why a row is refused that does not fit into memory by itself."""
FAULTS: Final = ("logprobs", "token_ids", "advantage", NON_FINITE)
"""What may be wrong with a row's numbers, or with those that came of them."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a training batch; all arrays have the shape (n,).

    Attributes:
        ids: Token ids, int64.
        mask: Where `ids` was sampled by the policy, bool.
        logprobs: The engine's log probability (nats) where `mask`, 0 elsewhere, float32.
        advantage: Of the row's sample, the same for each of its tokens.
        reward: Of the row's sample.
        oldest: The oldest policy version that sampled a token of it, None if nobody says which
            version sampled some token.
        newest: The newest one.
        offset: Of the row's batch.
        index: Of the row within its batch, counted before anything is refused.
        episode_id: Which episode it is from.
        staleness: Optimizer steps between sampling and use; set when the row is accepted.
        weight: What the row counts in the loss.
        temperatures: At which each token where `mask` was sampled, float32; None for 1 everywhere.
        unfit: Why it is refused whatever the rules are (see `drawn`), or "".
        altered: Sampled tokens that `mask` leaves out because of how they were sampled.
        truncated: Replies in it that were cut by length.
        token_advantages: Of each token where `mask`, float32; None where all have `advantage`.
        replayed: Whether its batch was drawn again: see `RowRules`.
        importance: What its share of the loss is multiplied by.
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    logprobs: npt.NDArray[np.float32]
    advantage: float
    reward: float
    oldest: int | None
    newest: int | None
    offset: int
    index: int
    episode_id: str
    task_id: str = ""
    staleness: int = 0
    weight: float = 1.0
    temperatures: npt.NDArray[np.float32] | None = None
    unfit: str = ""
    altered: int = 0
    truncated: int = 0
    token_advantages: npt.NDArray[np.float32] | None = None
    replayed: bool = False
    importance: float = 1.0

    @property
    def sampled(self) -> int:
        """How many tokens are trained on."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class EpisodeGroup:
    """A batch whose pointers have been followed.

    Attributes:
        offset: Of the batch.
        batch: The batch itself.
        episodes: Pointer and episode of each sample that was found.
        refused: Pointers that led nowhere or elsewhere, with the reason.
    """

    offset: int
    batch: Batch
    episodes: tuple[tuple[Pointer, Episode], ...] = ()
    refused: tuple[Refusal, ...] = field(default=())


def revised_group(group: EpisodeGroup, book: RevisionBook, until: int | None) -> EpisodeGroup:
    """A group with the late rewards before an offset; itself where they change nothing.

    Raises NotRevisable.
    """
    episodes = {pointer.episode_id: episode for pointer, episode in group.episodes}
    batch = revised_batch(group.batch, episodes, book, until)
    pointers = {pointer.episode_id: pointer for pointer in batch.episodes}
    pairs = tuple((pointers[pointer.episode_id], episode) for pointer, episode in group.episodes)
    return replace(group, batch=batch, episodes=pairs)


def arrays_of(
    sequence: Tokens,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Ids, mask and log probabilities of a sequence, each of shape (n,).

    Raises InvalidRecord where the wire's arrays are damaged (checked when the episode was decoded).
    """
    ids = unpack_ids(sequence.ids).astype(np.int64)
    mask = np.zeros(len(ids), dtype=np.bool_)
    for span in sequence.spans:
        mask[span.start : span.end] = True
    logprobs = np.zeros(len(ids), dtype=np.float32)
    logprobs[mask] = unpack_floats(sequence.logprobs)
    return ids, mask, logprobs


def comparison(
    *,
    baseline: str = "mean",
    scale: bool = True,
    k: int = PASS_K,
    shaping: LengthShaping = NO_SHAPING,
) -> Compare:
    """What makes advantages of the rewards and lengths of those who are compared."""

    def compare(rewards: Numbers, lengths: Numbers) -> Numbers:
        if shaping.active:
            rewards = shaping.shaped(rewards, lengths.astype(np.int64))
        return advantages(rewards, baseline=baseline, scale=scale, k=k, success=shaping.success)

    return compare


def rows_of(
    group: EpisodeGroup,
    *,
    baseline: str = "mean",
    scale: bool = True,
    k: int = PASS_K,
    shaping: LengthShaping = NO_SHAPING,
    weigh: Weigh = "row",
    take: Take = TAKE,
) -> list[Row]:
    """Every row of a group, in the order of its pointers and of their sequences.

    Advantages compare the rewards that the batch states (re-scoring changes those, not the
    episodes) over all of the batch's samples, whether or not a sample's tokens could be read: what
    a sample is worth does not depend on what we refuse. The first token of a row has no
    prediction, so a mask there is cleared.

    With `weigh` "episode" the rows of a sample weigh 1 together, each as much as the others,
    whichever of them are refused; but those that are unfit, such as a title's at temperature 0,
    weigh nothing. In how many sequences a sample falls is its harness' doing
    (compaction, sub-agents, a rewritten history): weighing 1 each, the longer half of a group
    would outvote the other, and its advantages would no longer be centred. A child's sequences are
    among its parent's.

    A child that is worth what its sample is has the sample's advantage. Any other is compared with
    the group's children of the same agent (see `worths`).
    """
    compare = comparison(baseline=baseline, scale=scale, k=k, shaping=shaping)
    worth = worths(group.batch, group.episodes, compare)
    rows: list[Row] = []
    for pointer, episode in group.episodes:
        for sequence in episode.sequences:
            reward, advantage = worth[sequence.child or pointer.episode_id]
            ids, _, logprobs = arrays_of(sequence)
            drawn = drawn_of(sequence, len(ids), take)
            mask = drawn.trained
            if not mask.any():
                continue
            oldest, newest = _versions(sequence, mask)
            rows.append(
                Row(
                    ids=ids,
                    mask=mask,
                    logprobs=np.where(mask, logprobs, 0).astype(np.float32),
                    advantage=advantage,
                    reward=reward,
                    oldest=oldest,
                    newest=newest,
                    offset=group.offset,
                    index=len(rows),
                    episode_id=pointer.episode_id,
                    task_id=group.batch.task_id,
                    temperatures=drawn.temperatures,
                    unfit=drawn.unfit,
                    altered=drawn.altered,
                    truncated=drawn.truncated,
                    replayed=pointer.uses > 0,
                    importance=pointer.weight,
                )
            )
    if weigh == "row":
        return rows
    count = Counter(row.episode_id for row in rows if not row.unfit)
    return [replace(row, weight=1 / max(count[row.episode_id], 1)) for row in rows]


def fault_of(row: Row, vocabulary: int = 0) -> str:
    """Why a row's numbers would ruin a step, as a refusal names it, or "".

    `logprobs`: that of a sampled token is below LEAST_LOGPROB, above 0, or no number.
    `token_ids`: an id is beyond the model's `vocabulary` (how many it has; 0: not looked at).
    `advantage`: it is too large for float32, or so small that float32 makes it 0.
    """
    logprobs = row.logprobs[row.mask]
    if not bool(((logprobs >= LEAST_LOGPROB) & (logprobs <= ROUNDING)).all()):
        return "logprobs"
    if vocabulary and int(row.ids.max()) >= vocabulary:
        return "token_ids"
    return "" if fits(row.advantage) else "advantage"


def _versions(sequence: Tokens, mask: npt.NDArray[np.bool_]) -> tuple[int | None, int | None]:
    """The oldest version, None where one is missing, and the newest one, of the masked tokens."""
    missing = mask.copy()
    versions = []
    for span in sequence.versions:
        missing[span.start : span.end] = False
        if mask[span.start : span.end].any():
            versions.append(span.version)
    return None if missing.any() else min(versions, default=None), max(versions, default=None)


def spans_of(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Each run of True in a mask as (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def per_turn(row: Row) -> list[Row]:
    """Split a merged row into its parts: for each sampled span its prompt and itself.

    What training costs without merging: the measure of `odradek bench trainer`.
    """
    single = []
    for start, end in spans_of(row.mask):
        mask = np.zeros(end, dtype=np.bool_)
        mask[start:] = True
        warm = None if row.temperatures is None else row.temperatures[:end]
        single.append(
            replace(
                row,
                ids=row.ids[:end],
                temperatures=warm,
                mask=mask,
                logprobs=np.where(mask, row.logprobs[:end], 0).astype(np.float32),
            )
        )
    return single


def tokens(rows: Sequence[Row]) -> int:
    """Tokens that a forward pass over these rows reads."""
    return sum(len(row.ids) for row in rows)
