"""A tiny model, made once; trainers on lists of groups; an engine on a free port."""

from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from transformers.utils import logging as transformers_logging

from odradek.trainer.adapters.transfer import AdapterTransfer
from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.commit.resume import ResumePoint
from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.engine.decode import Sampler
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.feed.cursor import Cursor, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import ListedGroups, LogRolloutWorker
from odradek.trainer.models import load_model, load_tokenizer
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.weights import fleet
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from tests.support.trainer.hilo import random_play
from tests.support.trainer.played_groups import group_of, play

torch.set_num_threads(1)
transformers_logging.set_verbosity_error()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The folder of a warmed-up tiny model."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, random_play(256, 0), seed=0, steps=40)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny):
    """Its tokenizer."""
    return load_tokenizer(tiny)


@pytest.fixture
def sampler(tiny, tokenizer) -> Sampler:
    """A fresh sampler over it."""
    model = load_model(tiny)
    return Sampler(model, pad_id=tokenizer.pad_token_id, end_ids=[tokenizer.eos_token_id], seed=0)


@pytest.fixture(scope="session")
def groups(tiny, tokenizer):
    """Forty groups of eight games, sampled by version 1; some of them are all equal."""
    sampler = Sampler(
        load_model(tiny), pad_id=tokenizer.pad_token_id, end_ids=[tokenizer.eos_token_id], seed=0
    )
    games = play(sampler, tokenizer, [1 + n // 8 % 3 for n in range(40 * 8)])
    return [group_of(games[n * 8 : n * 8 + 8], offset=n, version=1) for n in range(40)]


@dataclass
class Bench:
    """A trainer with what it works with."""

    trainer: LogTrainer
    announced: ListedAnnouncements
    consumption: Cursor
    settings: TrainerSettings

    def weights(self):
        """Every parameter, by name."""
        return {n: p.detach().clone() for n, p in self.trainer.model.named_parameters()}


@pytest.fixture
def bench(tiny, tmp_path):
    """Make a trainer: `bench(groups, max_steps=3, ...)`."""

    def make(
        groups, *, standing=None, name="run", lineage=None, urls=(), at=lambda _: None,
        announced=None, engines=None, **settings,
    ) -> Bench:  # fmt: skip
        told = {
            "model": str(tiny),
            "output_dir": tmp_path / name,
            "device": "cpu",
            "learning_rate": 2e-3,
            "rows_per_step": 16,
            "micro_tokens": 300,
            "max_staleness": 1000,
            "save_every": 1000,
        } | settings
        found = TrainerSettings(**told)
        if callable(standing):  # what a start finds depends on its settings
            standing, lineage = standing(found)
        standing = standing or ResumePoint()
        lineage = lineage or Lineage()
        position = standing.position
        consumption = Cursor(found.rules, lineage, position)
        feed = LogRolloutWorker(
            ListedGroups([g for g in groups if g.offset >= position.offset]), consumption, ahead=16
        )
        root, engines = found.output_dir / "weights", engines or Engines(urls, timeout_s=2)
        transfer = (
            AdapterTransfer(root, engines, found, keep=3, at=at)
            if found.lora_rank
            else DirectoryTransfer(root, engines, config=None, keep=3, at=at)
        )
        announced = announced or ListedAnnouncements()
        trainer = LogTrainer(found, TrainerParts(feed, transfer, announced, lineage, standing, at))
        return Bench(trainer, announced, consumption, found)

    return make


def standing_of(folder: Path, incarnation: int = 2) -> ResumePoint:
    """Where the run of a checkpoint stands, without a log."""
    from odradek.trainer.commit import checkpoint

    stored = checkpoint.position_of(folder)
    return ResumePoint(
        incarnation=incarnation,
        version=stored["version"],
        folder=folder,
        position=Position(stored["offset"], stored["row"], stored["step"]),
    )


@pytest.fixture
def resume():
    """`resume(folder)`: see `standing_of`."""
    return standing_of


@pytest.fixture
def weights(tmp_path):
    """Folders of weights, by version."""

    def made(version):
        folder = tmp_path / f"v{version}"
        folder.mkdir(exist_ok=True)
        (folder / WEIGHTS).write_bytes(b"weights %d" % version)
        return folder

    return made


@pytest.fixture
def quick_fleet(monkeypatch):
    """Fleets look again at once, not after seconds."""
    monkeypatch.setattr(fleet, "LOOK_S", 0.05)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_S", 0.1)
