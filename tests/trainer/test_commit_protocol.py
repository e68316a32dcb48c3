"""What the engines have is never too old to be trained on, whichever steps are skipped."""

from itertools import product

import pytest

from odradek.trainer.commit.protocol import (
    MOST_SKIPPED,
    Announce,
    CommitProtocol,
    Loaded,
    LoadWeights,
    SaveCheckpoint,
    drive,
)
from odradek.trainer.commit.resume import ResumePoint
from odradek.trainer.errors import NonFiniteSteps
from odradek.trainer.feed.cursor import ConsumedRows, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.settings import TrainerSettings

STEPS = 7
CADENCES = [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 4), (4, 3), (9, 8)]
"""(sync_every, max_staleness), most of them as tight as settings allow."""


class Run:
    """Starts of one run: steps that are made or skipped, and what the engines have after each."""

    def __init__(self, sync_every: int, max_staleness: int) -> None:
        self.settings = TrainerSettings(
            model="m", sync_every=sync_every, max_staleness=max_staleness, save_every=1
        )
        self.lineage = Lineage()
        self.told: list[Announce] = []
        self.loaded: list[int] = []
        self.begin(0, 0)

    def begin(self, step: int, skipped: int) -> None:
        """A start goes on from a checkpoint of this step."""
        standing = ResumePoint(
            version=max(self.loaded, default=0), position=Position(step=step), skipped=skipped
        )
        self.lineage.cut_off(step)
        self.moves = CommitProtocol(self.settings, standing, self.lineage)
        drive(self.moves.begin(step), self._do)

    def finish(self, step: int, *, skipped: bool) -> None:
        """One step."""
        passed, position = ConsumedRows(step), Position(offset=step, step=step)
        drive(self.moves.finish(step, passed, position, skipped=skipped), self._do)

    def staleness(self, step: int) -> int:
        """How old the weights that the engines have are for the step behind `step`."""
        return self.lineage.staleness(self.loaded[-1], step)

    def _do(self, move):
        if isinstance(move, LoadWeights):
            self.loaded.append(move.version)
            return Loaded(f"file:///v{move.version}", f"sha-{move.version}", {"e": move.version})
        if isinstance(move, Announce):
            self.told.append(move.event)
        return "manifest" if isinstance(move, SaveCheckpoint) else None


def patterns():
    """Which of some steps are skipped: every way without three in a row, which end a run."""
    for skips in product((False, True), repeat=STEPS):
        if not any(all(skips[at : at + MOST_SKIPPED]) for at in range(STEPS)):
            yield skips


@pytest.mark.parametrize("sync_every,max_staleness", CADENCES)
def test_rows_of_the_engines_weights_are_always_taken(sync_every, max_staleness):
    """Whichever steps are skipped: else no step would come any more that leads to a transfer."""
    for skips in patterns():
        run = Run(sync_every, max_staleness)
        for step, skipped in enumerate(skips, 1):
            run.finish(step, skipped=skipped)
            assert run.staleness(step) <= max_staleness, (skips, step)


@pytest.mark.parametrize("sync_every,max_staleness", CADENCES)
@pytest.mark.parametrize("behind", range(1, 4))
def test_so_it_is_after_a_start_from_any_step(sync_every, max_staleness, behind):
    """A start brings its weights to the engines at once, and counts on from there."""
    for skips in patterns():
        if sum(skips) < 2:
            continue
        run = Run(sync_every, max_staleness)
        in_a_row = 0
        for step, skipped in enumerate(skips, 1):
            run.finish(step, skipped=skipped)
            in_a_row = in_a_row + 1 if skipped else 0
            if step == behind:
                run.begin(step, in_a_row)
            assert run.staleness(step) <= max_staleness, (skips, step)


def test_a_due_step_that_is_skipped_brings_the_weights_as_they_stand():
    """Under a number of their own, in the order of every other step; its entry says so."""
    run = Run(2, 1)
    run.finish(1, skipped=False)
    run.finish(2, skipped=True)
    run.finish(3, skipped=True)
    assert [1, 2] == run.loaded
    assert 2 == run.lineage.step_of(2)
    taken, policy, entry, after = run.told[-4:]
    assert ("", 2, False) == (taken.weights, taken.version, taken.skipped)
    assert (2, 2, "sha-2", {"e": 2}) == (
        policy.version, policy.step, policy.digest, policy.engines
    )  # fmt: skip
    assert (2, True, False, 2) == (entry.step, entry.skipped, entry.optimized, entry.version)
    assert (3, True, 2) == (after.step, after.skipped, after.version)


def test_the_third_in_a_row_ends_the_run_with_engines_that_are_not_behind():
    """Everything is told before; the next start's weights are the same ones."""
    run = Run(1, 0)
    for step in (1, 2):
        run.finish(step, skipped=True)
    with pytest.raises(NonFiniteSteps):
        run.finish(3, skipped=True)
    assert [1, 2, 3, 4] == run.loaded
    assert 0 == run.staleness(3)
    assert (3, 4) == (run.told[-1].step, run.told[-1].version)
