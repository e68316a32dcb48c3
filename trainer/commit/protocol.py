"""The order in which a run becomes durable and known, move by move; the order is the guarantee.

Each method of `CommitProtocol` is a generator of what is to be done next. Whoever drives it does
just that and sends back what came of it: `LogTrainer` with torch, a disk and Kafka, the simulation
with none of them. So what is tried there under ten thousand kinds of death is the order that runs
here.
"""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from odradek.schemas.events import Policy, Step
from odradek.trainer.commit.cadence import Cadence
from odradek.trainer.commit.resume import ResumePoint
from odradek.trainer.errors import NonFiniteSteps
from odradek.trainer.feed.cursor import ConsumedRows, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.settings import TrainerSettings

KNOWN_VERSIONS = 64
"""How many versions a checkpoint knows the steps of."""
MOST_SKIPPED = 3
"""How many steps may be skipped in a row before a run ends."""
OF_THE_PLACE = {"model", "output_dir", "run", "policy", "engine_urls", "batches_topic", "device"}
"""Settings that say where a run is, and not how it learns: a checkpoint does not repeat them."""


class CrashPoint(Struct, frozen=True):
    """A crash point: if we die here, we die between two moves."""

    point: str


class SaveCheckpoint(Struct, frozen=True):
    """Copy the state as it is now, and begin to write it as the checkpoint of a step.

    It is written while the run goes on; no other one is being written.
    """

    step: int
    position: dict[str, Any]
    """What is stored inside as the position."""


class AwaitCheckpoint(Struct, frozen=True):
    """Send back `Saved` for the checkpoint that is being written, once it is durable."""

    wait: bool
    """Without it, send back None where it is not durable yet."""


class Saved(Struct, frozen=True):
    """A checkpoint that is durable."""

    step: int
    digest: str
    """sha256 of its manifest."""
    seconds: float = 0.0
    """How long it was written."""


class WaitForEngine(Struct, frozen=True):
    """Wait for an engine that answers."""


class LoadWeights(Struct, frozen=True):
    """Bring the weights to the engines under a version; send back `Loaded`."""

    version: int


class Loaded(Struct, frozen=True):
    """Weights that at least one of the engines has."""

    uri: str
    digest: str
    """sha256 of their file."""
    engines: dict[str, int] = {}
    """By address, the version that each engine serves now; 0 where nobody knows."""
    form: str = "safetensors"
    """What the announcement calls their folder's form."""


class Announce(Struct, frozen=True):
    """Append to the log, durably."""

    event: Policy | Step


Move = CrashPoint | SaveCheckpoint | AwaitCheckpoint | WaitForEngine | LoadWeights | Announce
Doing = Generator[Move, Any, None]


def drive(doing: Doing, do: Callable[[Move], Any]) -> None:
    """Make every move with `do`, which returns what came of it."""
    outcome = None
    while True:
        try:
            move = doing.send(outcome)
        except StopIteration:
            return
        outcome = do(move)


class CommitProtocol:
    """The moves of one start of a trainer, without its optimizer.

    Args:
        settings: Of the trainer.
        standing: Where its run stood.
        lineage: Told of every version before an engine has it.

    Attributes:
        version: The last one that this start took, or that anybody had before it.
        position: Of the first row that no finished step has used.
        skipped: How many steps were skipped in a row, those of earlier starts included.
    """

    def __init__(self, settings: TrainerSettings, standing: ResumePoint, lineage: Lineage) -> None:
        self.version = standing.version
        self.position = standing.position
        self.skipped = standing.skipped
        self._settings = settings
        self._cadence = Cadence.of(settings.save_every)
        self._standing = standing
        self._lineage = lineage
        self._begun = False
        self._sent = standing.position.step
        """The step whose weights the engines have."""
        self._loaded = Loaded("", "")
        self._metrics: dict[str, float] | None = None
        """Of the last step."""
        self._saved_step = standing.position.step
        """The step of the newest checkpoint, durable or being written."""
        self._saved_at = 0.0
        """When it was begun, or the start was."""
        self._untold: tuple[int, ConsumedRows] | None = None
        """Step and position of the checkpoint that is being written."""

    def begin(self, step: int, now: float = 0.0) -> Doing:
        """The first moves of a start: its weights get a version of their own.

        Args:
            step: The last one that was made before it.
            now: Seconds, by a clock that never goes back.
        """
        self._saved_at = now
        yield from self._load(step)
        self._begun = True
        swallowed = self._standing.swallowed
        yield CrashPoint("engine_before_policy")
        yield Announce(self._policy(step, swallowed.checkpoint if swallowed else ""))
        entry = self.entry(step, self._nothing)
        if swallowed is not None:
            entry = self.entry(
                step,
                ConsumedRows(
                    swallowed.position,
                    swallowed.row,
                    swallowed.used,
                    swallowed.refused,
                    source=swallowed.source,
                ),
                optimized=swallowed.optimized,
                skipped=swallowed.skipped,
                metrics=swallowed.metrics,
                checkpoint=swallowed.checkpoint,
            )
        yield CrashPoint("policy_before_step")
        yield Announce(entry)
        yield CrashPoint("step_told")

    def finish(
        self,
        step: int,
        passed: ConsumedRows,
        position: Position,
        metrics: dict[str, float] | None = None,
        *,
        skipped: bool = False,
        stopping: bool = False,
        now: float = 0.0,
    ) -> Doing:
        """Make a finished optimizer step durable, then known. A run may die between any two moves.

        Args:
            step: Its number.
            passed: What lies behind since the step before.
            position: The first row that it has not used.
            metrics: Looked at again for each entry: its driver may add to them.
            skipped: Whether it moved nothing, because it came to no number.
            stopping: Whether it is the last one of this start.
            now: Seconds, by the clock of `begin`.

        Raises NonFiniteSteps after MOST_SKIPPED skipped steps in a row, once the last is announced.
        """
        self.position = position
        self._metrics = metrics
        self.skipped = self.skipped + 1 if skipped else 0
        digest = ""
        entry = partial(
            self.entry, step, passed, optimized=not skipped, skipped=skipped, metrics=metrics
        )
        yield CrashPoint("optimizer_before_checkpoint")
        # 1. The checkpoint: it is begun here, and written while the run goes on. If we die before
        #    it is durable, the next start trains on this step's rows again, as on those of steps
        #    without a checkpoint. After that the step is done, and the next start tells the ledger
        #    what we did not.
        #    What a person or the next start relies on is waited for. A skipped step has one
        #    whenever it comes: the weights are those of before, and the position is behind its
        #    rows, so no start ever comes to them again.
        if self._cadence.due(step, now - self._saved_at) or skipped or stopping:
            self._saved_at = now
            yield from self._begin_save(step, entry())
        if skipped or stopping:
            digest = yield from self._end_save()
        yield CrashPoint("checkpoint_before_engine")
        # 2. The engine, under a version that the ledger has taken first. If we die below it, it
        #    samples under a version that no Policy tells; the next start goes above it, and the
        #    ledger says which weights it was.
        #    A step that was skipped brings the weights as they stand, which are numbers: it counts
        #    as one more that the engines are behind, and rows of weights that are older than
        #    max_staleness are refused, so no step would ever come that makes up for it.
        if self._is_due(step):
            yield from self._load(step)
            # 3. The log: the policy first, so that a reader of the ledger finds it known.
            yield CrashPoint("engine_before_policy")
            yield Announce(self._policy(step, digest))
        yield CrashPoint("policy_before_step")
        yield Announce(entry(checkpoint=digest))
        yield CrashPoint("step_told")
        # 4. The end of the run, if nothing but that is left. If we die above it, the checkpoint
        #    knows how many were skipped, so the next start ends with its first skipped step.
        if self.skipped >= MOST_SKIPPED:
            raise NonFiniteSteps(
                f"{self.skipped} steps in a row came to no number, the last of them step {step}; "
                "the weights are those of before. Look at `refused` in `odradek tail "
                "rl.steps.v1`; a lower learning_rate or a max_grad_norm may help"
            )

    def _is_due(self, step: int) -> bool:
        """Whether a multiple of `sync_every` lies between what the engines have and a step."""
        every = self._settings.sync_every
        return step // every > self._sent // every

    def look(self, *, wait: bool = False) -> Doing:
        """Tell the ledger of the checkpoint that was being written, once it is durable.

        The entry is of its step and its position, where a start that goes on from it begins, with
        nothing new passed. So it may come behind entries of later steps.

        Args:
            wait: Wait for it.
        """
        if self._untold is None:
            return
        saved = yield AwaitCheckpoint(wait=wait)
        if saved is None:
            return
        step, passed = self._untold
        self._untold = None
        # If we die above the announcement, the next start goes on from it and tells it first.
        yield CrashPoint("durable_before_told")
        yield Announce(self.entry(step, passed, checkpoint=saved.digest))
        yield CrashPoint("checkpoint_told")

    def end(self, step: int) -> Doing:
        """The last moves of a start: what it came to is durable and told."""
        yield from self.look(wait=True)
        if step != self._saved_step:
            entry = self.entry(step, self._nothing, metrics=self._metrics)
            yield from self._begin_save(step, entry)
            yield from self.look(wait=True)

    def _begin_save(self, step: int, entry: Step) -> Doing:
        """Begin a checkpoint; one that is being written still is waited for, and told."""
        yield from self.look(wait=True)
        yield self._save(step, entry)
        self._saved_step = step
        self._untold = step, self._nothing
        yield CrashPoint("snapshot_before_durable")

    def _end_save(self) -> Generator[Move, Any, str]:
        """Wait for the checkpoint of a step whose own entry tells of it; returns its digest."""
        saved: Saved = yield AwaitCheckpoint(wait=True)
        self._untold = None
        return saved.digest

    def _load(self, step: int) -> Doing:
        """Publish the current weights to the engines under a version that nobody had."""
        # A start that finds no engine ends here, and its supervisor makes another: none of them
        # takes a number.
        yield WaitForEngine()
        self.version += 1
        # The log knows the number before an engine can sample with it. If we die above this line,
        # nobody had it. Below it, nobody will have it again, whatever became of these weights.
        yield Announce(msgspec.structs.replace(self.entry(step, self._nothing), weights=""))
        yield CrashPoint("version_before_weights")
        # Before the engine can sample with it: rows of this version may come back at once.
        self._lineage.publish(self.version, step)
        self._sent = step
        self._loaded = yield LoadWeights(self.version)

    @property
    def _nothing(self) -> ConsumedRows:
        """The position, and nothing new behind it."""
        return ConsumedRows(self.position.offset, self.position.row, source=self.position.source)

    def entry(
        self,
        step: int,
        passed: ConsumedRows,
        *,
        optimized: bool = False,
        skipped: bool = False,
        metrics: dict[str, float] | None = None,
        checkpoint: str = "",
    ) -> Step:
        """An entry of the ledger, with the version in force."""
        settings = self._settings
        return Step(
            run=settings.run,
            incarnation=self._standing.incarnation,
            step=step,
            position=passed.position,
            row=passed.row,
            topic=settings.batches_topic,
            source=passed.source,
            optimized=optimized,
            skipped=skipped,
            used=passed.used,
            refused=passed.refused,
            version=self.version,
            policy=settings.policy_name,
            sampled_by=settings.leader,
            checkpoint=checkpoint,
            resumed_from="" if self._begun else self._standing.resumed_from,
            weights=self._loaded.digest,
            metrics=dict(metrics or {}),
            settings={} if self._begun else self._of_learning,
        )

    @property
    def _of_learning(self) -> dict[str, Any]:
        """What a reader of the ledger needs to come to the same rows."""
        return self._settings.model_dump(
            mode="json", exclude_defaults=True, exclude=OF_THE_PLACE - {"model"}
        )

    def _policy(self, step: int, checkpoint: str) -> Policy:
        return Policy(
            name=self._settings.policy_name,
            version=self.version,
            uri=self._loaded.uri,
            format=self._loaded.form,
            digest=self._loaded.digest,
            step=step,
            run=self._settings.run,
            checkpoint=checkpoint,
            engines=self._loaded.engines,
        )

    def _save(self, step: int, entry: Step) -> SaveCheckpoint:
        versions = sorted(self._lineage.steps)[-KNOWN_VERSIONS:]
        return SaveCheckpoint(
            step,
            {
                "offset": self.position.offset,
                "row": self.position.row,
                "step": self.position.step,
                "source": self.position.source,
                "version": self.version,
                "skipped": self.skipped,
                "versions": {str(each): self._lineage.step_of(each) for each in versions},
                "run": self._settings.run,
                "topic": self._settings.batches_topic,
                "model": self._settings.model,
                "settings": self._settings.model_dump(
                    mode="json", exclude_defaults=True, exclude=OF_THE_PLACE
                ),
                "entry": msgspec.to_builtins(entry),
            },
        )
