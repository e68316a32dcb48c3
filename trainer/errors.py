"""Errors of the trainer and the engine.

TrainerError
├── BadSettings             settings that contradict each other: a mistake, exit code 2
├── PolicyTaken             another trainer counts the same policy's versions: crash
├── ModelError
│   ├── NoModel             the folder is no model: a mistake, exit code 2
│   ├── NoTokenizer         the model has no tokenizer: a mistake, exit code 2
│   ├── BadAdapter          a folder is no plain LoRA adapter: a mistake, exit code 2
│   └── UnsuitedModel       its layers cannot be trained on packed trees: a mistake, exit code 2
├── NumbersError
│   ├── InvalidAdvantages   a person's function returned something else than advantages: crash
│   ├── NonFiniteWeights    weights that are no numbers are neither saved nor sent: crash
│   └── NonFiniteSteps      several steps in a row came to no number: crash, one step a start
├── BatchError
│   ├── PositionGone        retention has deleted what a batch or a position points at: crash, or
│   │                       refused where the batch is a replay's
│   ├── MissingRecord       nothing stands where a pointer points: refused, with the reason
│   ├── WrongDigest         something else stands there: refused, with the reason
│   ├── UntrainableEpisode  an imported episode stands there: refused, with the reason
│   └── RowsEnded           a replay has no more rows: the run ends
├── CheckpointError
│   ├── BrokenCheckpoint    a file differs from the manifest: the one before is taken
│   └── NoRoom              the disk is full or not writable: crash, nothing half-written counts
└── EngineFailure
    ├── EngineDown          no answer: gone on without; of all of them for `engine_timeout_s`: crash
    ├── EngineRefused       it answered, but not with success: the same, and crash at once
    └── UnsupportedRequest  a request that the small engine cannot serve: HTTP 400
"""

from typing import ClassVar


class TrainerError(Exception):
    """Something around the trainer or the engine does not work."""

    retriable: ClassVar[bool] = False


class BadSettings(TrainerError):
    """Settings that cannot hold together."""


class PolicyTaken(TrainerError):
    """Another trainer is at work on the same policy."""


class ModelError(TrainerError):
    """A model cannot be used."""


class NoModel(ModelError):
    """The path is not a model folder."""


class NoTokenizer(ModelError):
    """A model folder without a tokenizer."""


class BadAdapter(ModelError):
    """A folder whose files are no plain LoRA adapter, or do not belong together."""


class UnsuitedModel(ModelError):
    """A model whose layers a packed tree cannot run through, or not with the same result."""


class NumbersError(TrainerError):
    """A number is infinite, NaN, or not there."""


class InvalidAdvantages(NumbersError):
    """What a person's `baseline` returned is not one finite number for each sample."""


class NonFiniteWeights(NumbersError):
    """Weights, or what the optimizer remembers of them."""


class NonFiniteSteps(NumbersError):
    """Optimizer steps, one after the other."""


class BatchError(TrainerError):
    """A batch cannot be turned into rows."""

    reason: ClassVar[str] = "batch_error"
    """How a refusal in the ledger names it."""


class PositionGone(BatchError):
    """A position on a topic that retention has deleted."""

    reason = "retention"


class MissingRecord(BatchError):
    """A pointer to a record that is not there."""

    reason = "missing_record"


class WrongDigest(BatchError):
    """A pointer whose record holds something else."""

    reason = "wrong_digest"


class UntrainableEpisode(BatchError):
    """A pointer to an imported episode: nobody here knows which weights sampled it."""

    reason = "imported"


class RowsEnded(BatchError):
    """The topic is at its end and the run was asked to stop there."""

    reason = "rows_ended"


class CheckpointError(TrainerError):
    """A checkpoint cannot be written or read."""


class BrokenCheckpoint(CheckpointError):
    """A checkpoint whose files differ from its manifest, or which has none."""


class NoRoom(CheckpointError):
    """A folder that cannot be written to."""


class EngineFailure(TrainerError):
    """The engine cannot do what the request asks."""


class EngineDown(EngineFailure):
    """No engine answers at its address."""

    retriable: ClassVar[bool] = True


class EngineRefused(EngineFailure):
    """The engine answered with an error."""


class UnsupportedRequest(EngineFailure):
    """A request that the small engine does not serve."""
