"""`scripts/prove losses`: every loss learns the game from the same recorded batches."""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.engine.decode import Sampler
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import ListedGroups, LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup, Row, rows_of
from odradek.trainer.loss_table import LOSSES
from odradek.trainer.models import load_model, load_tokenizer
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from tests.support.trainer.hilo import random_play
from tests.support.trainer.played_groups import group_of, play

RECIPES: dict[str, dict[str, Any]] = {
    "dr_grpo": {"scale_advantages": "none"},
    "rloo": {"baseline": "leave_one_out", "scale_advantages": "none"},
    "reinforce_pp": {"baseline": "batch", "scale_advantages": "batch"},
}
"""What a loss is meant to go with, where that is not the default."""
SECRETS = [3, 3, 3, 3, 3, 3, 2, 2, 1]
"""Of a group's samples: 3 is the best first guess, 2 the next; whoever plays so wins 8 of 9."""
GROUP, GAMES = len(SECRETS), 270
ROWS, RATE = 45, 1e-3


def sampler_of(model: Any, tokenizer: Any, seed: int) -> Sampler:
    """Draws replies of a model."""
    end = [tokenizer.eos_token_id]
    return Sampler(model, pad_id=tokenizer.pad_token_id, end_ids=end, seed=seed)


def recorded(folder: Path, seed: int, steps: int) -> list[EpisodeGroup]:
    """The groups of a run: each step's are played with the weights that the steps before made."""
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    sampler, groups = sampler_of(model, tokenizer, seed), []
    for step in range(steps):
        made: list[EpisodeGroup] = []
        while sum(not group.batch.zero_variance for group in made) < ROWS // GROUP:
            number = len(groups) + len(made)
            games = play(sampler, tokenizer, SECRETS)
            made.append(group_of(games, offset=number, version=1 + step))
        groups += made
        _learn(
            model, optimizer, [row for g in made if not g.batch.zero_variance for row in rows_of(g)]
        )
    return groups


def _learn(model: Any, optimizer: torch.optim.Optimizer, rows: list[Row]) -> None:
    """One step of DAPO, row by row."""
    optimizer.zero_grad()
    total = StepTotals(sum(row.sampled for row in rows), len(rows))
    for row in rows:
        logits = model(input_ids=torch.tensor(row.ids)[None]).logits[0, :-1]
        scores = logits.log_softmax(-1).gather(1, torch.tensor(row.ids)[1:, None])[:, 0]
        chosen = torch.tensor(row.mask[1:])
        n = int(chosen.sum())
        terms = LossInputs(
            scores[chosen], torch.tensor(row.logprobs[1:])[chosen],
            torch.full((n,), row.advantage), torch.zeros(n, dtype=torch.int64), 1,
        )  # fmt: skip
        policy_loss("dapo", terms, total, LossOptions()).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


class _Evaluation(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Plays games with the weights as they are, every few steps."""

    def __init__(self, trainer: LogTrainer, twin: Any, every: int, seed: int) -> None:
        self.curve: list[float] = []
        self._trainer, self._twin, self._every, self._seed = trainer, twin, every, seed

    def play(self) -> None:
        """Add a point to the curve."""
        tokenizer = self._trainer.processing_class
        # The trained model attends to packed trees; its weights in a plain one draw replies.
        self._twin.load_state_dict(self._trainer.model.state_dict())
        secrets = SECRETS * (GAMES // GROUP)
        games = play(sampler_of(self._twin, tokenizer, self._seed), tokenizer, secrets)
        self.curve.append(sum(game.won for game, _ in games) / len(games))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        if state.global_step % self._every == 0:
            self.play()


def curve_of(
    loss: str, folder: Path, groups: list[EpisodeGroup], *, seed: int, steps: int, every: int
) -> list[float]:
    """Success before the first step, and after every few."""
    with tempfile.TemporaryDirectory() as place:
        settings = TrainerSettings(
            model=str(folder), output_dir=Path(place) / "run", device="cpu", loss=loss,
            learning_rate=RATE, rows_per_step=ROWS, max_staleness=1000, max_steps=steps,
            save_every=10**6, sync_every=10**6, seed=seed, **RECIPES.get(loss, {}),
        )  # fmt: skip
        cursor = Cursor(settings.rules, Lineage())
        feed = LogRolloutWorker(ListedGroups(list(groups)), cursor, ahead=ROWS)
        transfer = DirectoryTransfer(
            Path(place) / "weights", Engines((), timeout_s=2), config=None, keep=3
        )
        trainer = LogTrainer(
            settings, TrainerParts(feed, transfer, ListedAnnouncements(), Lineage())
        )
        evaluation = _Evaluation(trainer, load_model(folder), every, seed)
        trainer.add_callback(evaluation)
        evaluation.play()
        assert steps == trainer.run(), "there were too few rows"
        return evaluation.curve


@click.command()
@click.option("--loss", "chosen", multiple=True, type=click.Choice(list(LOSSES)), help="Only this.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=24, show_default=True, type=click.IntRange(1))
@click.option("--every", default=4, show_default=True, type=click.IntRange(1))
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures there.")
def main(chosen: tuple[str, ...], seeds: int, steps: int, every: int, out: Path | None) -> None:
    """Train each loss on the same recorded batches of the game, and play with what it has learned.

    Each seed has a model, its recorded games and its order of its own; all losses get the same ones,
    from the first weights alone, so the later steps are off-policy. Printed is the mean success of
    all seeds, with the lowest and the highest. Exit code 1 where a loss ends no better than it began.
    """
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    curves: dict[str, list[list[float]]] = {name: [] for name in chosen or LOSSES}
    with tempfile.TemporaryDirectory() as place:
        for seed in range(seeds):
            folder = Path(place) / f"model-{seed}"
            make_tiny(folder, random_play(256, seed), seed=seed, steps=40)
            groups = recorded(folder, seed, steps)
            played = [pointer.reward for group in groups for pointer in group.batch.episodes]
            last = len(played) // 10
            click.echo(
                f"seed {seed}: {len(groups)} groups; success {statistics.mean(played[:last]):.2f} in "
                f"the first tenth, {statistics.mean(played[-last:]):.2f} in the last"
            )
            for name, of_seeds in curves.items():
                of_seeds.append(curve_of(name, folder, groups, seed=seed, steps=steps, every=every))
                click.echo(f"seed {seed} {name:<13}{' '.join(f'{v:.2f}' for v in of_seeds[-1])}")
    figures = {
        name: [
            {"step": place * every, "mean": round(statistics.mean(values), 4),
             "low": round(min(values), 4), "high": round(max(values), 4)}
            for place, values in enumerate(zip(*of_seeds, strict=True))
        ]
        for name, of_seeds in curves.items()
    }  # fmt: skip
    for name, points in figures.items():
        first, last = points[0], points[-1]
        click.echo(f"{name:<13}{first['mean']:.2f} -> {last['mean']:.2f} "
                   f"({last['low']:.2f} to {last['high']:.2f})")  # fmt: skip
    if out:
        made = {"seeds": seeds, "rows_per_step": ROWS, "games": GAMES, "losses": figures}
        out.write_text(json.dumps(made, indent=1) + "\n")
    sys.exit(int(any(points[-1]["mean"] <= points[0]["mean"] for points in figures.values())))


if __name__ == "__main__":
    main()
