"""What is shown of the past. Each part names its place on the log: TOPIC/PARTITION/OFFSET."""

from typing import Any

from msgspec import Struct


class TokensView(Struct, frozen=True, kw_only=True):
    """The tokens of a row; all arrays have the shape (n,)."""

    ids: tuple[int, ...]
    trained: tuple[int, ...]
    """1 where a token is trained on."""
    sampled: tuple[int, ...]
    """1 where the policy sampled it, trained on or not."""
    logprobs: tuple[float | None, ...]
    """The engine's log probability in nats; None where nothing was sampled."""
    versions: tuple[int | None, ...]
    """Of the policy that sampled it."""
    temperatures: tuple[float | None, ...]
    """At which it was sampled."""
    advantages: tuple[float | None, ...]
    """Of each token that is trained on."""
    texts: tuple[str, ...] = ()
    """Of each token, where there is a tokenizer."""


class RowView(Struct, frozen=True, kw_only=True):
    """A row as the trainer makes it of a sequence."""

    at: str
    """Of its episode."""
    episode_id: str
    sample: int
    sequence: int
    """Of the episode's, counted from 0."""
    row: int
    """Of the batch's rows, counted before anything is refused."""
    child: str = ""
    reward: float
    advantage: float
    weight: float
    importance: float = 1.0
    """What its share of the loss is multiplied by."""
    replayed: bool = False
    """Whether its batch was drawn again."""
    oldest: int | None
    """Version that sampled its oldest tokens."""
    newest: int | None
    staleness: int | None = None
    """Optimizer steps between sampling and use; None where no step used it."""
    refused: str = ""
    """Why it was not used."""
    turns: tuple[str, ...] = ()
    tokens: TokensView


class SampleView(Struct, frozen=True, kw_only=True):
    """A sample of a batch."""

    at: str
    episode_id: str
    sample: int
    reward: float
    advantage: float
    revision: int = 0
    refused: str = ""
    """Why the trainer did without its tokens."""


class BatchView(Struct, frozen=True, kw_only=True):
    """A batch, and those of its rows that are meant."""

    at: str
    written: float
    """Unix seconds."""
    digest: str
    task_id: str
    item: str
    agent: str
    purpose: str
    origin: str
    samples: tuple[SampleView, ...]
    exclusions: tuple[dict[str, Any], ...]
    rows: tuple[RowView, ...]
    why_not: str = ""
    """Why it is passed whole, such as `zero_variance`."""


class PassedView(Struct, frozen=True, kw_only=True):
    """What a step passed without using it."""

    at: str
    """Of the batch."""
    reason: str
    episode_id: str = ""
    row: int | None = None


class StepView(Struct, frozen=True, kw_only=True):
    """An optimizer step, and all that it was trained on."""

    at: str
    written: float
    run: str
    step: int
    start: int
    """Which start of the trainer made it."""
    skipped: bool
    cut_off: bool
    """Whether a later start went on from before it and has not made it again."""
    topic: str
    began: tuple[int, int]
    """Batch and row at which it began."""
    ended: tuple[int, int]
    version: int
    version_at: str
    """The entry of the ledger that took the version."""
    policy: str
    weights: str
    checkpoint: str
    metrics: dict[str, float]
    settings: dict[str, Any]
    settings_at: str
    """The entry of the ledger that holds the settings; empty: they are this environment's."""
    batches: tuple[BatchView, ...]
    passed: tuple[PassedView, ...]
    remarks: tuple[str, ...] = ()
    """Where what is shown is not all that the ledger says."""


class StepUse(Struct, frozen=True, kw_only=True):
    """How much of a batch a step used."""

    at: str
    step: int
    rows: int


class UsedBatchView(Struct, frozen=True, kw_only=True):
    """A batch with all of its rows, and the steps that used it."""

    batch: BatchView
    used: tuple[StepUse, ...]


class EpisodeView(Struct, frozen=True, kw_only=True):
    """An episode: what became of it, and its rows."""

    at: str
    episode: dict[str, Any]
    """The record without its tokens."""
    batch_at: str
    """Empty: no batch of the topic points at it."""
    used: tuple[StepUse, ...]
    turns: tuple[dict[str, Any], ...]
    """Place, id and size of each turn."""
    rows: tuple[RowView, ...]


class TaskView(Struct, frozen=True, kw_only=True):
    """A task: what was asked, and the batch that came of it."""

    at: str
    """Empty: retention has deleted the task."""
    task: dict[str, Any]
    batch: UsedBatchView | None


class TurnView(Struct, frozen=True, kw_only=True):
    """One model call."""

    at: str
    turn: dict[str, Any]
    """The record without its arrays."""
    tokens: TokensView
    """Of the completion."""
    prompt_base: str
    prompt_prefix: int
    prompt_ids: tuple[int, ...]
    """New ids of the prompt, behind `prompt_prefix` ids of the turn `prompt_base`."""
