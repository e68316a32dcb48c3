"""Part f: the game is learned on the device, its replies sampled there, in one process."""

import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from odradek.infra.app.demo.project.game import HiLo, conversations
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Pointer
from odradek.trainer.commit.announcer import ListedAnnouncements
from odradek.trainer.engine.decode import Sampler, SampleRequest
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.models import load_model, load_tokenizer
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.weights.directory import DirectoryTransfer
from tests.support.trainer.played_groups import merged, prompt_of

GROUP = 8
SECRETS = (1, 2, 3)
"""What is to be found in an episode, one game after another."""
LOOKS = 33
"""Episodes of a look at how well it plays."""
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


def played(sampler, tokenizer, samples: int):
    """A game for each secret of each sample, all at once: [[(game, turns)]], by sample."""
    games = [(HiLo(secret), []) for _ in range(samples) for secret in SECRETS]
    messages = {id(game): game.opening() for game, _ in games}
    while live := [entry for entry in games if not entry[0].over]:
        prompts = [prompt_of(tokenizer, messages[id(game)]) for game, _ in live]
        results = sampler.sample([SampleRequest(ids, 1.0, 8) for ids in prompts])
        for (game, turns), ids, result in zip(live, prompts, results, strict=True):
            turns.append((ids, result))
            messages[id(game)] += game.answer(
                tokenizer.decode(result.ids, skip_special_tokens=True)
            )
    count = len(SECRETS)
    return [games[first : first + count] for first in range(0, len(games), count)]


def group_of(samples, offset: int, version: int) -> EpisodeGroup:
    """Samples as a batch with its episodes, each of the sequences of its games."""
    episodes = []
    for sample, games in enumerate(samples):
        reward = sum(game.score for game, _ in games) / len(games)
        episode = Episode(
            episode_id=f"e{offset}-{sample}", task_id=f"t{offset}", agent="hilo", sample=sample,
            group_size=len(samples), reward=reward,
            sequences=tuple(s for _, turns in games for s in merged(turns, version)),
        )  # fmt: skip
        pointer = Pointer(
            episode_id=episode.episode_id, sample=sample, topic="rl.episodes.v1", partition=0,
            offset=offset * len(samples) + sample, digest=codec.digest(codec.encode(episode)),
            reward=reward,
        )  # fmt: skip
        episodes.append((pointer, episode))
    pointers = tuple(pointer for pointer, _ in episodes)
    batch = Batch(
        task_id=f"t{offset}", agent="hilo", group_size=len(samples), episodes=pointers,
        zero_variance=len({pointer.reward for pointer in pointers}) == 1,
    )  # fmt: skip
    return EpisodeGroup(offset, batch, tuple(episodes))


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
            return group_of(played(self._sampler, engine.tokenizer, GROUP), offset, engine.version)

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
            episodes = played(self._engine.sampler(7), self._engine.tokenizer, LOOKS)
        scores = [game.score for games in episodes for game, _ in games]
        self.curve.append(round(sum(scores) / len(scores), 3))
        return self.curve[-1]

    def on_step_end(self, args, state, control, **_):
        if state.global_step % EVERY == 0 and self.look() >= ENOUGH:
            control.should_training_stop = True


def measure(device, sizes):
    """(name, figures) of one run."""
    torch.set_float32_matmul_precision("highest")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny(folder / "model", conversations(), seed=0, steps=40)
        engine = OwnEngine(folder / "model", device)
        settings = TrainerSettings(
            model=str(folder / "model"), output_dir=folder / "run", device=device.type,
            learning_rate=1e-3, rows_per_step=32, max_steps=sizes.steps, save_every=10**6,
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
