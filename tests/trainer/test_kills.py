"""A trainer that dies at any point goes on to the same weights; no version is ever used again.

Death is played by an exception at a crash point; `tests/chaos/test_trainer_kills.py` does the same
to real processes with SIGKILL.
"""

import contextlib
import os

import pytest

from odradek.infra.runtime.crash_points import ADAPTER_POINTS, POINTS
from odradek.streams.verify.findings import Findings
from odradek.streams.verify.trainer_runs import TrainerRuns
from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.commit.lock import claimed
from odradek.trainer.commit.resume import lineage_of, stand
from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import rows_of
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.vllm import VllmEngine
from tests.chaos.faults.power_cut import watched
from tests.support.engines.weight_engine import WeightEngine
from tests.support.trainer.nan_gradients import spoil

pytestmark = pytest.mark.torch

STEPS = 3
EVERY_STEP_SAVED = (
    "manifest_before_rename",
    "durable_before_told",
    "checkpoint_before_engine",
    "engine_before_policy",
)
AROUND_A_SKIPPED_STEP = ("optimizer_before_checkpoint", "between_files", "checkpoint_before_engine")
CASES = [(point, 2) for point in POINTS["train"]] + [(point, 1) for point in EVERY_STEP_SAVED]


class Died(BaseException):
    """kill -9, as far as Python can play it."""


def dying(point: str, nth: int):
    """Die as `point` is passed for the nth time."""
    left = [nth]

    def at(name: str) -> None:
        left[0] -= name == point
        if left[0] <= 0:  # and so it is in every other thread from then on
            raise Died

    return at


class Direct(VllmEngine):
    """An engine without HTTP between."""

    def __init__(self, url, engine: WeightEngine, at) -> None:
        super().__init__(url, at=at)
        self._engine = engine

    async def answers(self):
        """At once."""

    async def serves(self):
        return self._engine.version

    async def post(self, path, **request):
        self._engine.post(path, request.get("json", {}))


class DirectHost(Direct):
    """The same, with adapters."""

    async def ask(self, method, path, within_s, **request):
        if method == "POST":
            self._engine.post(path, request["json"])
        return 200, self._engine.models


def adapting(url, engine, at):
    """A client that loads adapters; it keeps two of them."""
    return AdapterClient(DirectHost(url, engine, at), AdapterTerms("policy", 4, kept=2), at=at)


def direct(at, *engines, kind=Direct):
    """Engines that are there."""
    found = {f"engine-{n}": engine for n, engine in enumerate(engines)}
    return Engines(list(found), client=lambda url: kind(url, found[url], at))


class Life:
    """A run over several starts: the log and the engine outlive each of them."""

    def __init__(self, bench, groups, name, *, skips=(), kind=Direct, **settings) -> None:
        self.bench, self.groups, self.name, self.settings = bench, groups, name, settings
        self.kind = kind
        self.skips = skips
        self.log = ListedAnnouncements()
        self.engines = WeightEngine(), WeightEngine()

    def start(self, at=lambda _: None) -> bool:
        """One start; whether it came to its end."""

        def found(settings):
            standing = stand(settings, self.log.steps, self.log.policies)
            return standing, lineage_of(settings, self.log.steps, standing)

        made = self.bench(
            self.groups, name=self.name, standing=found, announced=self.log, at=at,
            engines=direct(at, *self.engines, kind=self.kind), **self.settings,
        )  # fmt: skip
        if self.skips:
            spoil(made.trainer, *self.skips)
        try:
            with contextlib.suppress(Died):
                made.trainer.run()
                return True
            return False
        finally:
            made.trainer.parts.feed.stop()
            made.trainer.parts.transfer.destroy()

    def line(self):
        """Optimizer steps in the line that led to the end: a step done again replaces the first."""
        found = {e.step: e for e in self.log.steps if e.optimized or e.skipped}
        return [found[step] for step in sorted(found)]


@pytest.fixture(scope="module")
def whole():
    """What runs that nobody killed came to, by `save_every`."""
    return {}


def undisturbed(whole, bench, groups, save_every, skips=()):
    if (save_every, skips) not in whole:
        whole[save_every, skips] = life = Life(
            bench, groups, f"whole-{save_every}", max_steps=STEPS, rows_per_step=8, save_every=save_every,
            skips=skips,
        )  # fmt: skip
        assert life.start()
    return whole[save_every, skips]


@pytest.mark.parametrize(
    "point,save_every,skips",
    [(*case, ()) for case in CASES] + [(point, 1000, (2,)) for point in AROUND_A_SKIPPED_STEP],
)
def test_a_trainer_killed_anywhere_ends_with_the_same_weights(
    bench, groups, whole, point, save_every, skips
):
    """Killed at a point's second passing, killed again at its first, then left alone."""
    undisturbed_life = undisturbed(whole, bench, groups, save_every, skips)
    life = Life(
        bench,
        groups,
        "killed",
        max_steps=STEPS,
        rows_per_step=8,
        save_every=save_every,
        skips=skips,
    )
    assert not life.start(dying(point, 2))
    life.start(dying(point, 1))  # where the first death was behind the last step, it just ends
    assert life.start()
    line, expected = life.line(), undisturbed_life.line()
    assert expected[-1].weights == line[-1].weights != ""
    assert [entry.used for entry in expected] == [entry.used for entry in line]
    assert [entry.refused for entry in expected] == [entry.refused for entry in line]
    assert list(skips) == [entry.step for entry in line if entry.skipped]
    assert [(e.position, e.row) for e in expected] == [(e.position, e.row) for e in line]
    no_version_is_used_again(life)
    the_ledger_closes(life)


ADAPTED = {"kind": adapting, "lora_rank": 4, "max_steps": STEPS, "rows_per_step": 8, "tis": 2.0}


@pytest.mark.parametrize(
    "point,save_every",
    [*[(point, 1000) for point in ADAPTER_POINTS], ("manifest_before_rename", 1),
     ("weights_before_engine", 1), ("engine_before_policy", 1)],
)  # fmt: skip
def test_so_does_one_that_trains_an_adapter(bench, groups, whole, point, save_every):
    """Its adapter, its proximal policy and what its optimizer remembers come from the checkpoint."""
    if ("adapter", save_every) not in whole:
        whole["adapter", save_every] = left_alone = Life(
            bench, groups, f"whole-{save_every}", save_every=save_every, **ADAPTED
        )
        assert left_alone.start()
    life = Life(bench, groups, "killed", save_every=save_every, **ADAPTED)
    assert not life.start(dying(point, 2))
    life.start(dying(point, 1))
    assert life.start()
    line, expected = life.line(), whole["adapter", save_every].line()
    assert expected[-1].weights == line[-1].weights != ""
    assert [entry.used for entry in expected] == [entry.used for entry in line]
    assert [2, 2] == [len(engine.adapters) for engine in life.engines]
    assert {"lora"} == {policy.format for policy in life.log.policies}
    no_version_is_used_again(life)
    the_ledger_closes(life)


def the_ledger_closes(life):
    """What `odradek verify` makes of it: each batch once, in one line, whatever was cut off."""
    found = Findings()
    trained = TrainerRuns(found)
    rows: dict[str, int] = {}
    for group in life.groups:
        trained.batch("rl.batches.v1", group.offset, group.batch)
        for row in rows_of(group):
            rows[row.episode_id] = rows.get(row.episode_id, 0) + 1
    for offset, entry in enumerate(life.log.steps):
        trained.step(entry, offset)
    for policy in life.log.policies:
        trained.policy(policy)
    (table,) = trained.check(lambda pointer: rows.get(pointer.episode_id, 0))
    assert found.none, found
    made = STEPS - len(life.skips)
    assert (STEPS, 8 * made) == (table["steps"], table["rows_used"])


def test_a_start_that_finds_all_steps_done_makes_none(bench, groups):
    """Killed behind the last checkpoint: the ledger is completed, the weights stay."""
    life = Life(bench, groups, "done", max_steps=2, rows_per_step=8, save_every=1)
    assert not life.start(dying("checkpoint_before_engine", 2))
    assert life.start()
    assert life.start()
    assert [1, 2] == [entry.step for entry in life.log.steps if entry.optimized]
    assert [2, 2, 2, 2] == [entry.step for entry in life.log.steps[-4:]]


def no_version_is_used_again(life):
    """One digest for each version, in the engines, among the policies and in the ledger."""
    named: dict[int, set[str]] = {}
    for version, weights in (one for engine in life.engines for one in engine.served):
        named.setdefault(version, set()).add(weights)
    for policy in life.log.policies:
        named.setdefault(policy.version, set()).add(policy.digest)
    for entry in life.log.steps:
        if entry.weights:
            named.setdefault(entry.version, set()).add(entry.weights)
    assert [] == [version for version, digests in named.items() if len(digests) > 1]
    versions = [policy.version for policy in life.log.policies]
    assert sorted(set(versions)) == versions
    taken = {entry.version for entry in life.log.steps}
    for engine in life.engines:
        served = [version for version, _ in engine.served]
        assert sorted(set(served)) == served, "an engine went back"
        assert set(served[1:]) <= taken, "an engine had a version before the log knew of it"
    assert versions[-1] in {engine.version for engine in life.engines}
    assert all(policy.version in policy.engines.values() for policy in life.log.policies)


def test_every_announced_checkpoint_outlives_a_power_cut(bench, groups, tmp_path):
    """The moment the log has its digest, it can be loaded from what was fsynced."""
    (tmp_path / "disk").mkdir()
    with watched(tmp_path / "disk") as disk:
        life = Life(bench, groups, "disk/run", max_steps=2, rows_per_step=8, save_every=1)
        told = life.log.step
        loadable = []

        def step(entry):
            told(entry)
            if entry.checkpoint:
                left = disk.after_a_cut(tmp_path / "left")
                newest = checkpoint.newest(left / "run")
                assert newest is not None
                assert entry.checkpoint == checkpoint.verify(newest)
                weights = left / "run" / "weights" / f"v{entry.version}" / WEIGHTS
                assert entry.weights == durable_files.sha256_of(weights)
                loadable.append(entry.step)

        life.log.step = step
        assert life.start()
    assert [1, 2] == loadable


def test_weights_of_a_line_that_was_cut_off_are_as_far_behind_as_they_were_ahead():
    """Two steps beyond the cut are two steps from it: never fresh, whatever they are called."""
    lineage = Lineage({1: 0, 2: 8, 3: 10})
    lineage.cut_off(8)
    lineage.publish(4, 8)
    assert [0, 2, 0] == [lineage.staleness(version, 8) for version in (2, 3, 4)]
    assert [1, 3, 1] == [lineage.staleness(version, 9) for version in (2, 3, 4)]
    lineage.cut_off(6)
    assert 2 * 6 - 10 == lineage.step_of(3)


def test_an_engine_that_refuses_in_the_middle_stays_paused():
    """Weights and version disagree there: nothing may be sampled until the next start."""
    from odradek.trainer.errors import EngineRefused

    class Refusing(Direct):
        async def post(self, path, **request):
            if path == "/update_weight_version":
                raise EngineRefused("500")
            if path != "/collective_rpc":
                await super().post(path, **request)

    engine = WeightEngine()
    engines = direct(lambda _: None, engine, kind=Refusing)
    with pytest.raises(EngineRefused):
        engines.swap("folder", 7)
    engines.close()
    assert engine.paused
    assert [(0, "of the start")] == engine.served


def test_a_folder_has_one_trainer_at_a_time(tmp_path):
    """A second one is told who holds it; the kernel lets go when the holder dies."""
    with claimed(tmp_path / "run"), pytest.raises(BadSettings, match=f"process {os.getpid()}"):
        with claimed(tmp_path / "run"):
            pass
    with claimed(tmp_path / "run"):
        pass
