"""Faults of the trainer and of its checkpoints."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from msgspec import convert
from msgspec.structs import replace as replaced

from odradek.schemas.events import Policy, Step
from odradek.trainer.commit import durable_files, resume
from odradek.trainer.commit.protocol import (
    Announce,
    AwaitCheckpoint,
    CommitProtocol,
    Doing,
    LoadWeights,
)
from odradek.trainer.feed.cursor import ConsumedRows, Cursor, Position
from odradek.trainer.settings import TrainerSettings
from tests.simulation import trainer
from tests.simulation.planted.patches import Patches


def fsync_dropped() -> Patches:
    """Checkpoints are written, and never synced."""
    return [(durable_files, "fsync", lambda _: None)]


def _in_another_order(change: Callable[[Doing], Doing]) -> Patches:
    """The moves of every start and step, changed."""
    begin, finish = CommitProtocol.begin, CommitProtocol.finish

    def begun(self: CommitProtocol, *args: Any, **more: Any) -> Doing:
        return change(begin(self, *args, **more))

    def finished(self: CommitProtocol, *args: Any, **more: Any) -> Doing:
        return change(finish(self, *args, **more))

    return [(CommitProtocol, "begin", begun), (CommitProtocol, "finish", finished)]


def _one_by_one(change: Callable[[Any], list[Any]]) -> Patches:
    """The same, each move replaced by others; what the last of them came to is its outcome."""

    def changed(doing: Doing) -> Doing:
        outcome = None
        while True:
            try:
                move = doing.send(outcome)
            except StopIteration:
                return
            outcome = None
            for other in change(move):
                outcome = yield other

    return _in_another_order(changed)


def _is_taking(move: Any) -> bool:
    return isinstance(move, Announce) and isinstance(move.event, Step) and not move.event.weights


def version_not_taken() -> Patches:
    """The engines get weights under a version that the ledger does not know yet."""
    return _one_by_one(lambda move: [] if _is_taking(move) else [move])


def policy_before_engine() -> Patches:
    """A policy is told before the engines have it."""

    def early(move: Any) -> list[Any]:
        if not isinstance(move, LoadWeights):
            return [move]
        return [Announce(Policy(name="policy", version=move.version, uri="file:///early")), move]

    return _one_by_one(early)


def told_before_durable() -> Patches:
    """A checkpoint is told as durable while it is being written."""

    def early(self: CommitProtocol, *, wait: bool = False) -> Doing:
        del wait
        if self._untold is not None:
            (step, passed), self._untold = self._untold, None
            yield Announce(self.entry(step, passed, checkpoint="0" * 64))
            yield AwaitCheckpoint(wait=True)

    return [(CommitProtocol, "look", early)]


def durable_untold() -> Patches:
    """A checkpoint that has become durable is never told."""

    def silent(self: CommitProtocol, *, wait: bool = False) -> Doing:
        if self._untold is not None and (yield AwaitCheckpoint(wait=wait)) is not None:
            self._untold = None

    return [(CommitProtocol, "look", silent)]


def copied_as_it_is_written() -> Patches:
    """The writer reads the weights when it comes to them, and not those of the moment."""

    class Later:
        def __init__(self, owner: trainer.Trainer) -> None:
            self._owner = owner

        def __iter__(self) -> Iterator[bytes]:
            yield self._owner.weights.encode()

    def state(self: trainer.Trainer) -> dict[str, Any]:
        return {trainer.WEIGHTS: Later(self)}

    return [(trainer.Trainer, "_state", state)]


def told_steps_told_again() -> Patches:
    """A start tells a step again that was told before its checkpoint was durable."""

    def again(own: Any, digest: str, stored: Any) -> Step | None:
        if any(step.checkpoint == digest for step in own):
            return None
        return replaced(convert(stored["entry"], Step), checkpoint=digest)

    return [(resume, "_swallowed", again)]


def position_read_ahead() -> Patches:
    """A checkpoint stands where reading is, not where the optimizer is."""
    finish = Cursor.finish_step

    def ahead(self: Cursor, **more: Any) -> ConsumedRows:
        passed = finish(self, **more)
        self._at = Position(self._read, 0, self._at.step)
        return passed

    return [(Cursor, "finish_step", ahead)]


def unfit_rows_used() -> Patches:
    """Rows for which there was no memory count as used."""
    finish = Cursor.finish_step

    def all_of_them(self: Cursor, **more: Any) -> ConsumedRows:
        return finish(self, **more | {"unfit": frozenset()})

    return [(Cursor, "finish_step", all_of_them)]


def refusals_untold() -> Patches:
    """What is refused is passed without a word."""
    finish = Cursor.finish_step

    def silent(self: Cursor, **more: Any) -> ConsumedRows:
        return replace(finish(self, **more), refused=())

    return [(Cursor, "finish_step", silent)]


def swallowed_ignored() -> Patches:
    """A step that died between its checkpoint and its entry is never told."""
    return [(resume, "_swallowed", lambda *_: None)]


def versions_reused() -> Patches:
    """A start counts on from the policies, and knows nothing of versions that were only taken."""
    stand = resume.stand

    def short(settings: Any, ledger: Any, policies: Iterable[Policy]) -> Any:
        found = stand(settings, ledger, policies)
        found.version = max((one.version for one in policies), default=0)
        return found

    return [(trainer, "stand", short)]


def skipped_steps_sent_nowhere() -> Patches:
    """A due step that is skipped leaves the engines with the weights that they have."""
    due = CommitProtocol._is_due

    def made(self: CommitProtocol, step: int) -> bool:
        return not self.skipped and due(self, step)

    return [(CommitProtocol, "_is_due", made)]


def followers_give_credit() -> Patches:
    """Steps of a trainer that does not lead do not say so."""
    entry = CommitProtocol.entry

    def unmarked(self: CommitProtocol, *args: Any, **more: Any) -> Step:
        return replaced(entry(self, *args, **more), sampled_by="")

    return [(CommitProtocol, "entry", unmarked)]


def followers_take_the_policy() -> Patches:
    """A trainer that does not lead announces its weights as the policy that agents sample from."""
    return [(TrainerSettings, "policy_name", property(lambda self: self.policy))]
