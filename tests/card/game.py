"""Part f: the game is learned on the device, its replies sampled there, in one process."""

import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.engine.decode import Sampler
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.models import load_model, load_tokenizer
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.weights.directory import DirectoryTransfer
from tests.support.trainer.hilo import random_play
from tests.support.trainer.played_groups import group_of, play, success

GROUP = 8
ENOUGH = 0.9
EVERY = 10
"""Steps between two looks at how well it plays."""


class OwnEngine:
    """In the engines' place: a model in this process, loaded from the folders that are sent."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, device=str(device))
        self.version = 0
        self.loaded = threading.Event()
        self.lock = threading.Lock()
        """Held while it samples, and while it loads."""

    def reach(self) -> None:
        """It is here."""

    def swap(self, folder: Path, version: int) -> dict[str, int]:
        """Load a folder of weights."""
        with self.lock:
            self.model.load_state_dict(load_file(folder / "model.safetensors"))
            self.version = version
        self.loaded.set()
        return {"here": version}

    def close(self) -> None:
        """Nothing is open."""

    def sampler(self, seed: int) -> Sampler:
        """Draws replies of the newest weights."""
        ends = [self.tokenizer.eos_token_id]
        return Sampler(self.model, pad_id=self.tokenizer.pad_token_id, end_ids=ends, seed=seed)


class PlayedGroups:
    """Implements `GroupSource`: each group is played when it is asked for."""

    def __init__(self, engine: OwnEngine) -> None:
        self._engine = engine
        self._sampler = engine.sampler(0)
        self._offset = 0

    def next(self, timeout_s: float):
        """Games of one secret; it waits for the first weights."""
        engine = self._engine
        if not engine.loaded.wait(timeout_s):
            return None
        offset = self._offset
        self._offset += 1
        with engine.lock:
            games = play(self._sampler, engine.tokenizer, [1 + offset % 3] * GROUP)
            return group_of(games, offset=offset, version=engine.version)

    def ended(self) -> bool:
        """It goes on for ever."""
        return False

    def close(self) -> None:
        """Nothing is open."""


class Watch(TrainerCallback):
    """Looks now and then how well the weights play, and ends where that is enough."""

    def __init__(self, engine: OwnEngine) -> None:
        self.curve: list[float] = []
        self._engine = engine

    def look(self) -> float:
        """The share of games that are won."""
        with self._engine.lock:
            share = success(self._engine.sampler(7), self._engine.tokenizer)
        self.curve.append(round(share, 3))
        return self.curve[-1]

    def on_step_end(self, args, state, control, **_):
        if state.global_step % EVERY == 0 and self.look() >= ENOUGH:
            control.should_training_stop = True


def measure(device, sizes):
    """(name, figures) of one run."""
    torch.set_float32_matmul_precision("highest")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny(folder / "model", random_play(256, 0), seed=0, steps=40)
        engine = OwnEngine(folder / "model", device)
        settings = TrainerSettings(
            model=str(folder / "model"), output_dir=folder / "run", device=device.type,
            learning_rate=2e-3, rows_per_step=64, max_steps=sizes.steps, save_every=10**6,
            max_staleness=8,
        )  # fmt: skip
        lineage, announced = Lineage(), ListedAnnouncements()
        feed = LogRolloutWorker(
            PlayedGroups(engine), Cursor(settings.rules, lineage), ahead=settings.rows_per_step
        )
        transfer = DirectoryTransfer(folder / "weights", engine, config=None, keep=2)
        trainer = LogTrainer(settings, TrainerParts(feed, transfer, announced, lineage))
        watch = Watch(engine)
        before = watch.look()
        trainer.add_callback(watch)
        began = time.perf_counter()
        steps = trainer.run()
        seconds = time.perf_counter() - began
        last = watch.look()
    metrics = [step.metrics for step in announced.steps if step.metrics]
    yield (
        "hi-lo",
        {
            "precision": trainer._precision,
            "steps": steps,
            "seconds": round(seconds, 2),
            "success_before": before,
            "success": last,
            "curve": watch.curve,
            "enough": last >= ENOUGH,
            "mismatch_k3": max(
                (m["mismatch_k3"] for m in metrics if "mismatch_k3" in m), default=None
            ),
            "tokens_per_s": max((m.get("tokens_per_s", 0.0) for m in metrics), default=None),
        },
    )
