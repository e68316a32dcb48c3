"""Faults that are planted on purpose, each a small patch of the real code; all must be found.

They are applied while the world runs and taken away before its logs are judged. A fault counts as
found only by a check that is there to find it: a world that merely does not come to rest, or whose
processes end, has not found anything.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

from tests.simulation.failure import Failure
from tests.simulation.planted import engines, folds, mixing, stages, tasks, training
from tests.simulation.planted.patches import Patches, applied
from tests.simulation.scenario import Scenario


class Fault(NamedTuple):
    """A fault that is planted.

    Attributes:
        plant: Makes its patches.
        found_by: The checks that are there to find it; each of them must.
        since: The seed from which on tests look for it: what is rare takes many.
        needs: Fields of a scenario that its worlds have: without them it could not show.
    """

    plant: Callable[[], Patches]
    found_by: frozenset[str]
    since: int
    needs: dict[str, Any]

    def scenario(self, seed: int) -> Scenario:
        """The scenario of a seed, with what the fault needs."""
        return replace(Scenario.of(seed), **self.needs)


def _by(
    plant: Callable[[], Patches], *checks: str, since: int = 0, **needs: Any
) -> tuple[str, Fault]:
    return plant.__name__.replace("_", "-"), Fault(plant, frozenset(checks), since, needs)


MIXED: dict[str, Any] = {"mixed": True, "tasks": 10, "group_size": 3, "rows_per_step": 3}
TROUBLED: dict[str, Any] = {"engines": 3, "engine_every": 1.0}
ADAPTED: dict[str, Any] = {"adapters": True, "tasks": 10, "group_size": 3, "rows_per_step": 1}

PLANTED: dict[str, Fault] = dict(
    (
        _by(stages.done_mark_ignored, "repeated"),
        _by(stages.commit_before_produce, "lost", since=2),
        _by(stages.commit_outside_the_transaction, "repeated", since=2),
        _by(stages.no_seek_after_assignment, "lost"),
        _by(stages.tick_not_read_back, "repeated", "episodes"),
        _by(stages.zombies_not_fenced, "repeated", since=19),
        _by(stages.ticks_held_back, "punctual", since=14),
        _by(stages.low_water_ignored, "resumable", "lost"),
        _by(stages.repeats_not_held, "resumable", since=7),
        _by(folds.dedupe_off, "episodes", "hosts"),
        _by(folds.state_without_opened, "letters", "ghosts", since=4),
        _by(folds.late_rewards_dropped, "revisions", "letters"),
        _by(folds.last_reward_counts, "episodes", since=30),
        _by(folds.gaps_ignored, "episodes", since=3),
        _by(folds.turns_after_the_end, "episodes", "letters", since=5),
        _by(folds.clocks_believed, "episodes"),
        _by(folds.children_not_waited_for, "episodes", "letters"),
        _by(folds.lost_children_forgiven, "episodes"),
        _by(folds.orphans_adopted, "episodes"),
        _by(folds.retried_children_trained, "episodes"),
        _by(folds.worth_of_parents_alone, "episodes"),
        _by(folds.retries_end_samples, "batches"),
        _by(folds.first_sample_wins_late, "batches", since=18),
        _by(tasks.sent_forgotten, "requests", "expected"),
        _by(tasks.waiting_forgotten, "expected"),
        _by(tasks.credit_not_counted, "credit"),
        _by(tasks.batches_unheard, "forgotten", since=2),
        _by(tasks.requests_outside_the_transaction, "requests", since=15),
        _by(tasks.repeats_not_remembered, "repeats", since=8, repeats=1),
        _by(tasks.evals_not_passed, "forgotten", since=1),
        _by(tasks.marks_run_ahead, "credit"),
        _by(training.fsync_dropped, "checkpoints", since=13),
        _by(training.version_not_taken, "versions"),
        _by(training.policy_before_engine, "policies"),
        _by(training.told_before_durable, "remade", since=77),
        _by(training.durable_untold, "checkpoints"),
        _by(training.copied_as_it_is_written, "checkpoints", since=8),
        _by(training.told_steps_told_again, "conservation", since=10),
        _by(training.position_read_ahead, "weights", since=18),
        _by(training.unfit_rows_used, "no_memory"),
        _by(training.refusals_untold, "conservation", since=13),
        _by(training.swallowed_ignored, "weights", since=30),
        _by(training.versions_reused, "versions", since=18),
        _by(training.skipped_steps_sent_nowhere, "fresh", since=7),
        _by(training.followers_give_credit, "credit", beside=True, open_groups=1),
        _by(training.followers_take_the_policy, "policies", beside=True),
        _by(mixing.mixed_before_offsets, "mixed", since=3, **MIXED, crash_point=0.05),
        _by(mixing.offsets_before_mixed, "mixed", since=3, **MIXED, crash_point=0.05),
        _by(mixing.draws_not_read_back, "mixed", since=3, **MIXED, crash_point=0.02),
        _by(mixing.replayed_batches_give_credit, "credit", **MIXED, open_groups=1),
        _by(mixing.repeated_rows_used, "weights", since=54),
        _by(engines.all_engines_named, "policies"),
        _by(engines.dead_engines_waited_for, "goes_on", since=2, **TROUBLED, engine_gone=True),
        _by(engines.refusals_believed, "goes_on", since=4),
        _by(engines.returning_engines_forgotten, "engines", since=1, **TROUBLED, sync_every=3),
        _by(engines.late_engines_left_behind, "engines", since=1, **TROUBLED, sync_every=3),
        _by(engines.named_after_it_samples, "versions", since=1),
        _by(engines.adapters_never_forgotten, "adapters", since=1, **ADAPTED),
        _by(engines.adapters_loaded_under_one_name, "policies"),
    )
)


def planted(name: str) -> AbstractContextManager[None]:
    """A block within which the code has this fault."""
    return applied(PLANTED[name].plant())


def finding(name: str, failures: tuple[Failure, ...]) -> frozenset[str]:
    """Which of the checks that are there to find a fault have found it."""
    return PLANTED[name].found_by & {failure.check for failure in failures}
