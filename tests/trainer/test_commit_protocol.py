"""What the engines have is never too old to be trained on, whichever steps are skipped."""

from itertools import product

import pytest

from odradek.schemas.events import Step
from odradek.trainer.commit.protocol import (
    MOST_SKIPPED,
    Announce,
    AwaitCheckpoint,
    CommitProtocol,
    Loaded,
    LoadWeights,
    SaveCheckpoint,
    Saved,
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

    def __init__(
        self,
        sync_every: int = 1,
        max_staleness: int = 4,
        *,
        save_every: int = 1,
        quick: bool = True,
    ) -> None:
        self.settings = TrainerSettings(
            model="m", sync_every=sync_every, max_staleness=max_staleness, save_every=save_every
        )
        self.quick = quick
        """Whether a checkpoint is durable as soon as anybody looks."""
        self.writing: int | None = None
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
        self.writing = None
        self.moves = CommitProtocol(self.settings, standing, self.lineage)
        drive(self.moves.begin(step, 100.0), self._do)

    def finish(self, step: int, **how) -> None:
        """One step."""
        passed, position = ConsumedRows(step), Position(offset=step, step=step)
        drive(self.moves.finish(step, passed, position, **how), self._do)

    def durable(self) -> list[tuple[int, int, bool, str]]:
        """(step, position, optimized, digest) of each entry that tells of a checkpoint."""
        steps = [move for move in self.told if isinstance(move, Step)]
        return [(e.step, e.position, e.optimized, e.checkpoint) for e in steps if e.checkpoint]

    def staleness(self, step: int) -> int:
        """How old the weights that the engines have are for the step behind `step`."""
        return self.lineage.staleness(self.loaded[-1], step)

    def _do(self, move):
        if isinstance(move, LoadWeights):
            self.loaded.append(move.version)
            return Loaded(f"file:///v{move.version}", f"sha-{move.version}", {"e": move.version})
        if isinstance(move, Announce):
            self.told.append(move.event)
        if isinstance(move, SaveCheckpoint):
            assert self.writing is None, "two checkpoints at once"
            self.writing = move.step
        if isinstance(move, AwaitCheckpoint) and (move.wait or self.quick):
            step, self.writing = self.writing, None
            return Saved(step, f"manifest-{step}")
        return None


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


def test_a_checkpoint_is_told_once_it_is_durable_and_not_before():
    """By an entry of its own step and position; its step was told without it."""
    run = Run(quick=False)
    run.finish(1)
    drive(run.moves.look(), run._do)
    assert [] == run.durable()
    run.quick = True
    drive(run.moves.look(), run._do)
    drive(run.moves.look(), run._do)
    assert [(1, 1, False, "manifest-1")] == run.durable()
    optimized = [entry.step for entry in run.told if isinstance(entry, Step) and entry.optimized]
    assert [1] == optimized


def test_one_checkpoint_is_written_at_a_time():
    """The next one waits, and is told behind the one before."""
    run = Run(quick=False)
    run.finish(1)
    run.finish(2)
    assert [(1, 1, False, "manifest-1")] == run.durable()
    drive(run.moves.end(2), run._do)
    assert [(1, 1, False, "manifest-1"), (2, 2, False, "manifest-2")] == run.durable()


@pytest.mark.parametrize("how", ["skipped", "stopping"])
def test_a_checkpoint_that_somebody_relies_on_is_waited_for(how):
    """The next start never meets a skipped step's rows, and SIGTERM ends with all that was done."""
    run = Run(save_every=1000, quick=False)
    run.finish(1, **{how: True})
    assert [(1, 1, how == "stopping", "manifest-1")] == run.durable()
    drive(run.moves.end(1), run._do)
    assert 1 == len(run.durable())


def test_the_end_saves_what_has_no_checkpoint():
    """And waits for it; a start that made no step saves nothing."""
    run = Run(save_every=2, quick=False)
    drive(run.moves.end(0), run._do)
    assert [] == run.durable()
    for step in (1, 2, 3):
        run.finish(step)
    drive(run.moves.end(3), run._do)
    assert [(2, 2), (3, 3)] == [entry[:2] for entry in run.durable()]


@pytest.mark.parametrize(
    ("text", "saved"),
    [("1", [1, 2, 3, 4, 5, 6]), ("4", [4]), ("25s", [3, 6]), ("1m", [6]), ("2h", [])],
)
def test_checkpoints_come_by_steps_or_by_time(text, saved):
    """Steps of ten seconds: by time, the first that ends so long after the last one was begun."""
    run = Run(save_every=text)
    for step in range(1, 7):
        run.finish(step, now=100 + 10.0 * step)
    drive(run.moves.look(), run._do)
    assert saved == [step for step, *_ in run.durable()]


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "10 m", "10d", "m", "true", "1e3", "0s"])
def test_what_is_neither_steps_nor_a_time_is_refused(text):
    """In one line that shows both."""
    with pytest.raises(ValueError, match="write 20, or 90s, 10m, 2h"):
        TrainerSettings(model="m", save_every=text)
