"""One run: an arm learns a game from a seed until greedy play is good enough, or it gives up."""

import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from accelerate.utils import modeling
from transformers import TrainerCallback

from odradek.streams.sampler.mixer import Mixer
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from tests.learning.replay.arms import Arm
from tests.learning.replay.games import LearnedGame
from tests.learning.replay.rollouts import HeldLedger, HeldWeights, MixedGroups, Player

SURE: Final = 3
"""Evaluations in a row that must reach the target before a run ends."""
EVERY: Final = 64
"""Fresh rollouts between two evaluations: as often for every arm, however many steps it makes."""


@dataclass
class Curve:
    """Greedy success, and the fresh rollouts that were consumed by then."""

    points: list[tuple[int, float]] = field(default_factory=list)

    def first(self, target: float, run: int = 1) -> int | None:
        """The fresh rollouts at the first of so many points in a row that reach a target."""
        row = 0
        for place, (_, success) in enumerate(self.points):
            row = row + 1 if success >= target else 0
            if row == run:
                return self.points[place - run + 1][0]
        return None


class _Watch(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Plays greedily after every few fresh rollouts, and ends the run."""

    def __init__(self, game: LearnedGame, player: Player, trainer: LogTrainer) -> None:
        self.curve = Curve()
        self._game, self._player, self._trainer = game, player, trainer
        self._next = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state
        game, trainer = self._game, self._trainer
        at = trainer.parts.feed.consumption.position
        mixed = trainer.settings.batches_topic != "rl.batches.v1"
        fresh = (at.source if mixed else at.offset) * len(game.secrets)
        if fresh < self._next:
            return
        self._next = fresh - fresh % EVERY + EVERY
        numbers = range(1, game.high + 1)
        games = self._player.play(trainer.version, numbers, temperature=0.0)
        self.curve.points.append((fresh, sum(one.won for one, _ in games) / game.high))
        if fresh >= game.most or self.curve.first(game.target, SURE) is not None:
            control.should_training_stop = True


def model_of(folder: Path, game: LearnedGame, seed: int) -> Path:
    """The model that all arms of a seed begin with."""
    path = folder / f"{game.name}-{seed}"
    if not (path / "tiny.json").exists():
        make_tiny(path, game.conversations(), steps=game.warm_up_steps, seed=seed)
    return path


def learn(arm: Arm, game: LearnedGame, seed: int, models: Path) -> dict[str, Any]:
    """Run it; what is written of it."""
    began, began_cpu = time.monotonic(), time.process_time()
    model = model_of(models, game, seed)
    with TemporaryDirectory() as place:
        settings = TrainerSettings(
            model=str(model), output_dir=Path(place) / "run", device="cpu", seed=seed,
            batches_topic=arm.topic, max_steps=10**6, save_every=str(10**6), **{**arm.learning(), **game.learning},
        )  # fmt: skip
        lineage = Lineage()
        cursor = Cursor(settings.rules, lineage)
        held, ledger = HeldWeights(), HeldLedger()
        mixing = arm.mixing(seed)
        source = MixedGroups(
            game, Player(model, game, held, seed), ledger, cursor,
            None if mixing is None else Mixer(mixing.rules), settings.rows_per_step,
        )  # fmt: skip
        feed = LogRolloutWorker(source, cursor, ahead=settings.rows_per_step, idle_s=1e9)
        trainer = LogTrainer(settings, TrainerParts(feed, held, ledger, lineage, at=lambda _: None))
        watch = _Watch(game, Player(model, game, held, seed), trainer)
        trainer.add_callback(watch)
        try:
            steps = trainer.run()
        finally:
            feed.stop()
    curve = watch.curve
    entries = [entry for entry in ledger.steps if entry.optimized]
    return {
        "arm": arm.name,
        "game": game.name,
        "seed": seed,
        "reached": curve.first(game.target, SURE) is not None,
        "fresh": curve.first(game.target),
        "fresh_sure": curve.first(game.target, SURE),
        "consumed": curve.points[-1][0],
        "played": source.played * len(game.secrets),
        "steps": steps,
        "rows": steps * settings.rows_per_step,
        "refused": sum(len(entry.refused) for entry in entries),
        "best": max(success for _, success in curve.points),
        "cpu_s": round(time.process_time() - began_cpu, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "curve": _thinned(curve.points),
    }


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Only the points at which success changes."""
    kept: list[tuple[int, float]] = []
    for fresh, success in points:
        if not kept or round(success, 3) != kept[-1][1]:
            kept.append((fresh, round(success, 3)))
    return kept


def quiet() -> None:
    """One thread, none of transformers' bars, and no look for PEFT at each of a run's steps."""
    from odradek.trainer.process import quiet as of_the_trainer

    modeling.is_peft_available = cache(modeling.is_peft_available)

    torch.set_num_threads(1)
    of_the_trainer()
