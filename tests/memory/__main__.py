"""`scripts/prove memory`: the peak of memory of each step of a run, by rows of a step."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from msgspec.structs import replace
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from odradek.schemas import arrays
from odradek.schemas.events import Span, VersionSpan
from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from tests.support.trainer.played_groups import group_with_rewards

GROUP, PROMPT, LONGEST = 8, 32, 160
"""Samples of a group, tokens of their prompt, and most tokens of a row."""
MICRO_TOKENS = 1024
SAVE_EVERY = 10
GROWS = 0.02
"""A run grows if the last quarter's highest peak is above the second quarter's by more than this."""


class Groups:
    """Groups of random rows without an end, made as they are asked for."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._offset = 0

    def next(self, timeout_s: float) -> EpisodeGroup:
        """See `GroupSource`."""
        del timeout_s
        group = group_with_rewards(self._offset, [float(at % 2) for at in range(GROUP)])
        self._offset += 1
        prompt = self._random.integers(5, 60, PROMPT)
        pairs = []
        for pointer, episode in group.episodes:
            length = int(self._random.integers(LONGEST // 2, LONGEST))
            ids = np.concatenate([prompt, self._random.integers(5, 60, length - PROMPT)])
            sequence = replace(
                episode.sequences[0],
                ids=arrays.pack_ids(ids.tolist()),
                spans=(Span(PROMPT, length),),
                logprobs=arrays.pack_floats([-4.0] * (length - PROMPT)),
                versions=(VersionSpan(1, PROMPT, length),),
            )
            pairs.append((pointer, replace(episode, sequences=(sequence,))))
        return EpisodeGroup(group.offset, group.batch, tuple(pairs))

    def ended(self) -> bool:
        """See `GroupSource`."""
        return False

    def close(self) -> None:
        """See `GroupSource`."""


def measured(rows: int, steps: int) -> list[dict[str, float]]:
    """The metrics of each step."""
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        make_tiny(folder, [], seed=0, steps=0)
        config = AutoConfig.from_pretrained(folder)
        config.hidden_size, config.intermediate_size, config.num_hidden_layers = 256, 1024, 2
        config.layer_types = ["full_attention"] * 2
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        settings = TrainerSettings(
            model=str(folder), output_dir=Path(place) / "run", device="cpu", max_steps=steps,
            rows_per_step=rows, micro_tokens=MICRO_TOKENS, max_staleness=10**6, keep=1,
            save_every=SAVE_EVERY, sync_every=10**6,
        )  # fmt: skip
        feed = LogRolloutWorker(Groups(), Cursor(settings.rules, Lineage()), ahead=rows)
        transfer = DirectoryTransfer(Path(place) / "w", Engines(()), config=None, keep=1)
        told = ListedAnnouncements()
        trainer = LogTrainer(settings, TrainerParts(feed, transfer, told, Lineage()))
        trainer.run()
        feed.stop()
    return [step.metrics for step in told.steps if step.optimized]


def summary(rows: int, steps: list[dict[str, float]]) -> dict[str, Any]:
    """The highest peaks of the quarters, of which the first has what is made once; and checkpoints.

    `still` is the share of a step that training stands still for its checkpoint; `inside` what it
    would be if the training thread wrote it.
    """
    peaks = [step["peak_memory_mb"] for step in steps]
    quarter = max(len(peaks) // 4, 1)
    parts = [max(peaks[at : at + quarter]) for at in range(0, 4 * quarter, quarter)]
    train, still, written = (
        statistics.median(step[name] for step in steps if name in step)
        for name in ("train_s", "checkpoint_s", "checkpoint_write_s")
    )
    return {
        "rows": rows,
        "peak_mb": round(max(peaks), 1),
        "quarters_mb": [round(part, 1) for part in parts],
        "growth": round(parts[3] / parts[1] - 1, 4),
        "still": round(still / (train + still), 4),
        "inside": round((still + written) / (train + still + written), 4),
    }


@click.command()
@click.option("--rows", "sizes", multiple=True, type=int, default=(8, 32, 128), show_default=True)
@click.option("--steps", default=200, show_default=True, type=click.IntRange(4))
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures there.")
@click.option("--one", type=int, hidden=True)
def main(sizes: tuple[int, ...], steps: int, out: Path | None, one: int | None) -> None:
    """Train a model of two million weights on random rows, in a process for each size of a step.

    A checkpoint is written every ten steps. Exit code 1 where the highest peak of the last quarter is
    above that of the second one by more than two percent.
    """
    if one is not None:
        click.echo(json.dumps(measured(one, steps)))
        return
    figures = []
    for rows in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "tests.memory", "--one", str(rows), "--steps", str(steps)],
            check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        figures.append(summary(rows, json.loads(done.stdout.splitlines()[-1])))
        click.echo(
            f"{rows} rows: peak {figures[-1]['peak_mb']} MB; by quarters "
            f"{figures[-1]['quarters_mb']}; growth {figures[-1]['growth']:+.2%}; a step stands still "
            f"for its checkpoint {figures[-1]['still']:.1%}, and {figures[-1]['inside']:.1%} if it "
            "wrote it"
        )
    if out:
        made = {
            "steps": steps,
            "micro_tokens": MICRO_TOKENS,
            "longest_row": LONGEST,
            "runs": figures,
        }
        out.write_text(json.dumps(made, indent=1) + "\n")
    sys.exit(int(any(run["growth"] > GROWS for run in figures)))


if __name__ == "__main__":
    main()
