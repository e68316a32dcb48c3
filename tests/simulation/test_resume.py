"""A checkpoint that a run goes on from is there for good, whoever had died while writing it."""

from random import Random

import pytest

from odradek.schemas.events import Step
from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.commit.resume import stand
from tests.simulation.disk import Disk
from tests.simulation.scenario import training
from tests.simulation.seams import Shutil
from tests.simulation.trainer import WEIGHTS


class Died(BaseException):
    """At a crash point."""


@pytest.mark.parametrize("seed", range(8))
def test_what_is_resumed_from_survives_a_power_cut(seed, monkeypatch):
    """Also where its writer died between the rename and the fsync of the folder."""
    disk = Disk(Random(seed))
    root = disk.path("policy")
    settings = training(1, 1).model_copy(update={"output_dir": root})
    monkeypatch.setattr(checkpoint, "shutil", Shutil)
    monkeypatch.setattr(durable_files, "fsync", disk.fsync)
    entry = {"run": "main", "incarnation": 1, "step": 1, "position": 1}
    position = {"offset": 1, "row": 0, "step": 1, "version": 1, "versions": {}, "run": "main"}

    def at(point):
        if point == "renamed_before_durable":
            raise Died

    with pytest.raises(Died):
        checkpoint.write(
            root,
            1,
            {WEIGHTS: [b"weights"]},
            keep=2,
            position={**position, "topic": settings.batches_topic, "entry": entry},
            at=at,
        )
    found = stand(settings, [Step(**entry)], [])
    assert "checkpoint-1" == found.folder.name
    disk.crash()
    assert "weights" == (checkpoint.newest(root) / WEIGHTS).read_text()
