"""A trainer with two engines of which one, or both, are away."""

import socket

import pytest

from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.commit.resume import lineage_of, stand
from odradek.trainer.errors import EngineDown
from tests.support.engines.weight_engine import WeightServer

pytestmark = pytest.mark.torch


def dead():
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


class Run:
    """Starts of one run before two addresses; its log outlives them."""

    def __init__(self, bench, groups, *urls, **settings):
        self.bench, self.groups, self.urls = bench, groups, urls
        self.settings = {"rows_per_step": 8, "save_every": 1, **settings}
        self.log = ListedAnnouncements()

    def start(self, max_steps):
        """One start; the versions that its policies name, engine by engine."""

        def found(settings):
            standing = stand(settings, self.log.steps, self.log.policies)
            return standing, lineage_of(settings, self.log.steps, standing)

        told = len(self.log.policies)
        made = self.bench(
            self.groups, urls=self.urls, standing=found, announced=self.log, max_steps=max_steps,
            **self.settings,
        )  # fmt: skip
        try:
            made.trainer.run()
        finally:
            made.trainer.parts.feed.stop()
            made.trainer.parts.transfer.destroy()
        return [[one.engines[url] for url in self.urls] for one in self.log.policies[told:]]


def test_one_dead_engine_of_two_stops_no_training(bench, groups):
    """Its versions go on, and each policy says which engine has it."""
    with WeightServer() as server:
        run = Run(bench, groups, dead(), server.url)
        assert [[0, 1], [0, 2], [0, 3]] == run.start(2)
        assert [1, 2] == [entry.step for entry in run.log.steps if entry.optimized]
        assert 3 == server.engine.version


def test_an_engine_that_dies_and_comes_back_is_named_again(bench, groups):
    """It dies as it is paused; back, it has the next weights like the other one."""
    with WeightServer() as well, WeightServer() as lost:
        lost.behaves["/pause"] = "dies"
        run = Run(bench, groups, lost.url, well.url)
        assert [[0, 1], [0, 2]] == run.start(1)
        with WeightServer(port=lost.port) as back:
            assert [[3, 3], [4, 4]] == run.start(2)
        assert [3, 4] == [version for version, _ in back.engine.served[1:]]


def test_two_dead_engines_cost_no_version_however_often_it_starts(bench, groups):
    """The trainer ends with the line that says what to do; once one is back, it goes on."""
    with WeightServer() as server:
        run = Run(bench, groups, dead(), server.url)
        assert [[0, 1], [0, 2]] == run.start(1)
    told = len(run.log.steps)
    for _ in range(3):
        with pytest.raises(EngineDown, match=r"no engine answers at .*, .*: start it"):
            run.start(2)
    assert told == len(run.log.steps)
    with WeightServer(port=server.port):
        assert [[0, 3], [0, 4]] == run.start(2)
    assert [1, 2, 3, 4] == [policy.version for policy in run.log.policies]
