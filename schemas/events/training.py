"""What the trainer reads and writes: batches, steps, policies."""

import hashlib
from typing import Annotated, Any, Final

from msgspec import Meta

from odradek.schemas.events.event import Count, Event, Name, Purpose, Size


class Pointer(Event, frozen=True, kw_only=True):
    """Where an episode of a batch stands, and how to know it again."""

    episode_id: str
    sample: Count
    topic: str
    """Without the prefix of the installation."""
    partition: Count
    offset: Count
    digest: str
    """sha256 of the record's value."""
    reward: float
    revision: Count = 0
    """How many late rewards changed it; 0: it is the episode's own."""
    uses: Count = 0
    """How often it was in a batch of a mixed topic before; 0: it is fresh."""
    weight: Annotated[float, Meta(ge=0)] = 1.0
    """What its rows' share of the loss is multiplied by."""


class Exclusion(Event, frozen=True, kw_only=True):
    """A sample that did not make it into a batch, and why."""

    sample: Count
    reason: str
    episode_id: str = ""


class Mixed(Event, frozen=True, kw_only=True):
    """What the sampler had read when it wrote a batch. Its draws follow from that and its seed."""

    batch: Count
    """Offset on `rl.batches.v1` of the batch that this one is, or repeats."""
    batches: Count
    """Offset on `rl.batches.v1` behind the last batch that it had read."""
    steps: Count
    """Offset on `rl.steps.v1` behind the last step that it had read."""


class Batch(Event, frozen=True, tag="batch", kw_only=True):
    """One closed group: a list of pointers. Their order on the topic is the training order."""

    task_id: Name
    agent: str = ""
    purpose: Purpose = "train"
    item: str = ""
    group_size: Size
    episodes: tuple[Pointer, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    empty_reason: str = ""
    """Why there are no episodes, such as `too_few` or `duplicate_task`."""
    zero_variance: bool = False
    children_differ: bool = False
    """Whether children of one agent were worth different rewards that are not their parents'."""
    retries: Count = 0
    """Attempts that were followed by another one; counted apart from exclusions."""
    origin: str = ""
    """Of a replayed batch: topic/partition/offset of the batch it repeats."""
    revision: Count = 0
    """Of a batch whose rewards late ones changed: the offset on `rl.revisions.v1` up to which they
    count."""
    mixed: Mixed | None = None
    """On a mixed topic only."""

    def digest(self) -> str:
        """sha256 of the pointers' digests, in order: equal for equal training data.

        Rewards are in an episode's own digest; one that a late reward changed is added.
        """
        digests = "".join(
            f"{pointer.digest}@{pointer.reward!r}" if pointer.revision else pointer.digest
            for pointer in self.episodes
        )
        return hashlib.sha256(digests.encode()).hexdigest()


class BatchUse(Event, frozen=True, kw_only=True):
    """How much of a batch a step used."""

    offset: Count
    rows: Count = 0
    digest: str = ""
    """The batch's own, with the rewards that it was used with."""
    revision: Count = 0
    """Offset on `rl.revisions.v1` up to which late rewards counted; 0: none did."""
    source: Count | None = None
    """Of a mixed topic: offset on `rl.batches.v1` of the batch that it is, or repeats."""
    advantage: Annotated[float, Meta(ge=0)] = 0.0
    """Of a mixed topic: the mean of |advantage| over these rows, which the sampler draws by."""


class Refusal(Event, frozen=True, kw_only=True):
    """A batch, an episode or a row that the trainer passed without using it."""

    offset: Count
    reason: str
    episode_id: str = ""
    row: Count | None = None
    """Of the batch's rows, counted before refusals; none for a whole episode or batch."""


class Step(Event, frozen=True, tag="step", kw_only=True):
    """An entry of the trainer's ledger."""

    run: Name
    incarnation: Count
    """Counts the trainer's starts in this run."""
    step: Count
    position: Count
    """Offset of the first batch that has not been passed."""
    row: Count = 0
    """Rows of the batch at `position` that are passed."""
    topic: str = "rl.batches.v1"
    source: Count = 0
    """Of a mixed topic: offset on `rl.batches.v1` behind the last fresh batch that was passed."""
    optimized: bool = True
    """False where batches were passed without an optimizer step."""
    skipped: bool = False
    """The step came to no number: it keeps its number, moved nothing, and its rows are refused."""
    used: tuple[BatchUse, ...] = ()
    refused: tuple[Refusal, ...] = ()
    version: Count = 0
    """Of the weights in force. The first entry that names a version takes it: an engine has it
    later, and nobody else ever."""
    policy: str = ""
    """Name of the policy that `version` counts."""
    sampled_by: str = ""
    """Of a run beside the one whose weights agents sample from: that one's name. It gives no
    credit: the rollouts keep pace with the other."""
    checkpoint: str = ""
    """sha256 of the manifest of this step's checkpoint, which is durable. Where it became so after
    the step was told, an entry of its own tells of it, perhaps behind entries of later steps."""
    resumed_from: str = ""
    """In a start's first entry: sha256 of the manifest of the checkpoint that it resumed from."""
    weights: str = ""
    """sha256 of the weights' file, or of their shards' index, which holds each shard's; empty where
    the version is only taken."""
    metrics: dict[str, float] = {}
    settings: dict[str, Any] = {}
    """In a start's first entry: the model it began with, and the trainer's settings that differ
    from the defaults, without those that only say where it runs."""


LORA: Final = "lora"
"""The format of a policy that is an adapter of the model that its engines were started with."""


class Policy(Event, frozen=True, tag="policy", kw_only=True):
    """Weights that engines and proxies may use from now on."""

    name: Name
    version: Count
    uri: str
    format: str = "safetensors"
    """`safetensors`: whole weights. `lora`: an adapter, which engines list as NAME-vVERSION; calls
    name it, and the model that it belongs to stays in the engine."""
    digest: str = ""
    step: Count = 0
    run: str = ""
    checkpoint: str = ""
    engines: dict[str, Count] = {}
    """By address, as the trainer has it, the version that each engine serves now: one that did not
    take these weights has an older one, or 0 where nobody knows. There may be other engines."""
