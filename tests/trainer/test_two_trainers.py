"""Two trainers read the same batches at once, each with its adapter, as if each were alone."""

import threading

import pytest
import torch

from odradek.schemas import codec
from odradek.schemas.events import Step
from odradek.trainer.commit import ledger
from odradek.trainer.commit.ledger import first_of, rival
from odradek.trainer.commit.resume import ResumePoint, lineage_of
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.settings import TrainerSettings

pytestmark = pytest.mark.torch
FIRST = {"lora_rank": 4, "lora_alpha": 8, "learning_rate": 5e-3, "max_steps": 3, "kl": 0.05}
SECOND = {
    "lora_rank": 2, "lora_targets": "q_proj,v_proj", "loss": "gspo", "tis": 2.0,
    "learning_rate": 2e-3, "max_steps": 3, "run": "second", "sampled_by": "main", "seed": 5,
}  # fmt: skip


def entry(version, step, *, incarnation=1, run="main", policy="policy"):
    return Step(
        run=run, incarnation=incarnation, step=step, position=step, version=version, policy=policy
    )


def test_each_of_two_trainers_learns_what_it_learns_alone(groups, bench):
    """Bit for bit: at once in two threads, against one after the other."""
    alone = {}
    for name, settings in (("first", FIRST), ("second", SECOND)):
        made = bench(groups, name=f"{name}-alone", **settings)
        made.trainer.run()
        alone[name] = made
    # Both models are there before either trains: a start seeds what is drawn for all.
    both = {
        name: bench(groups, name=name, **settings)
        for name, settings in (("first", FIRST), ("second", SECOND))
    }
    threads = [threading.Thread(target=made.trainer.run) for made in both.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    for name, made in both.items():
        for parameter, weights in alone[name].weights().items():
            assert torch.equal(weights, made.weights()[parameter]), (name, parameter)
    used = [
        [use.offset for step in made.announced.steps for use in step.used] for made in both.values()
    ]
    assert used[0] == used[1]


def test_the_second_moves_no_policy_that_anybody_follows(groups, bench):
    """Its weights go by a name of their own, it loads no engine, and its steps give no credit."""
    made = bench(groups, name="second", **{**SECOND, "max_steps": 1})
    made.trainer.run()
    assert {"policy.second"} == {policy.name for policy in made.announced.policies}
    assert {"main"} == {step.sampled_by for step in made.announced.steps}


@pytest.mark.parametrize("given", [{"sampled_by": "main"}, {"leads": False}])
def test_a_trainer_that_does_not_lead_has_a_policy_of_its_own_and_no_engine(given):
    """However it is told so; the run that leads is `main` where nobody names it."""
    settings = TrainerSettings(engine_urls="http://a:1", run="second", **given)
    assert ("main", "policy.second", ()) == (
        settings.leader, settings.policy_name, settings.engines
    )  # fmt: skip
    alone = TrainerSettings(engine_urls="http://a:1", run="second")
    assert ("", "policy", ("http://a:1",)) == (alone.leader, alone.policy_name, alone.engines)


def test_the_age_of_a_row_is_counted_by_the_run_that_sampled_it():
    """A version that came since is looked up in the ledger, which has it before any engine."""
    entries = [entry(1, 0), entry(2, 1)]
    settings = TrainerSettings(run="second", sampled_by="main")
    lineage = lineage_of(settings, [*entries, entry(9, 0, run="second")], ResumePoint())
    asked = []

    def more():
        asked.append(len(entries))
        return entries

    lineage.more = more
    lineage.publish(77, 3)  # its own versions are none that a row was sampled by
    assert 1 == lineage.staleness(2, 2)
    entries += [entry(3, 2), entry(4, 3)]
    assert 1 == lineage.staleness(3, 3)
    assert 0 == lineage.staleness(4, 3)
    assert [4] == asked


def test_a_start_of_the_first_again_is_heard_of():
    """Weights of the line that it left are as old as for the first itself."""
    entries = [entry(1, 0), entry(2, 1), entry(3, 2), entry(4, 1, incarnation=2)]
    whole, heard = Lineage.from_ledger(entries), Lineage.from_ledger(entries[:2])
    heard.more = lambda: entries
    for version in (4, 3, 2, 1):
        assert whole.staleness(version, 3) == heard.staleness(version, 3)


class Tail:
    """A ledger that holds nothing of a run at first."""

    run = "elsewhere"

    def __init__(self, *parts):
        self._parts = iter(parts)

    def more(self):
        return next(self._parts, [])


def test_a_run_that_leads_may_start_later(monkeypatch):
    """Whoever reads beside it waits for its first entry."""
    monkeypatch.setattr(ledger, "LOOK_S", 0.0)
    assert [entry(1, 0)] == first_of(Tail([], [], [entry(1, 0)]))


def test_a_run_that_the_ledger_does_not_know_samples_nothing(monkeypatch):
    """A name that was mistyped is told once nobody has come by that name."""
    monkeypatch.setattr(ledger, "LEADER_S", -1.0)
    with pytest.raises(BadSettings, match="'elsewhere', and the ledger knows no such run"):
        first_of(Tail())


@pytest.mark.parametrize(
    ("others", "clash"),
    [
        ([], False),
        ([entry(4, 3)], False),
        ([entry(5, 3)], False),  # our own
        ([entry(5, 3, run="other")], True),
        ([entry(6, 3, run="other")], True),
        ([entry(4, 3, run="other")], False),
        ([entry(5, 3, incarnation=2)], True),
        ([entry(5, 3, run="other", policy="policy.other")], False),
    ],
)
def test_a_trainer_that_counts_the_same_versions_is_found_out(others, clash):
    """By the policy's name and a number that is ours; whatever its run is called."""
    assert clash == (rival(others, entry(5, 3)) is not None)


def test_an_entry_of_before_was_sampled_by_its_own_run():
    """The field is new, and has a default."""
    old = codec.encode(entry(1, 0)).replace(b'"sampled_by":"",', b"")
    assert not codec.decode(old, Step).sampled_by
