"""Rollouts in process: an engine in memory, groups played with fixed lag, mixed as the sampler does.

What a run of the whole stack does through Kafka is done here by calls: `Mixer`, `Cursor` and the
trainer are the real ones, and so are the rows. Which weights play which group follows from counts
alone, so a run is a function of its seed.
"""

import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch

from odradek.schemas.events import Batch, Policy, Step
from odradek.streams.sampler.mixer import Mixer
from odradek.trainer.engine.decode import Sampler
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.models import load_model, load_tokenizer
from tests.learning.replay.games import LearnedGame
from tests.support.trainer.played_groups import group_of, play

LAG: Final = 1
"""Steps that the weights which play are behind: the demo's rows are 1.1 behind in the mean."""
TOGETHER: Final = 2
"""Groups that are played at once, with the same weights."""


class HeldWeights:
    """Weights of each version, in memory, in the place of a transfer to engines."""

    form = "safetensors"

    def __init__(self) -> None:
        self.version = 0
        self.folder = Path("/held")
        self.digest = ""
        self.served: dict[str, int] = {}
        self.of: dict[int, dict[str, torch.Tensor]] = {}

    def send_weights(self, iterator: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Keep them under the version; the few before it may still be played with."""
        self.of[self.version] = {name: tensor.detach().clone() for name, tensor in iterator}
        self.of.pop(self.version - LAG - 3, None)
        self.digest = f"version {self.version}"

    def reach(self) -> None:
        """Nothing is away."""

    init_weight_transfer = pause = resume = destroy = reach


class HeldLedger:
    """The announcements of a run, and what stood there when each step's weights were there.

    Attributes:
        steps: As on `rl.steps.v1`; offsets are places.
        marks: By step, the version of its weights and how many entries there were.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.marks: dict[int, tuple[int, int]] = {}
        self.changed = threading.Condition()

    def policy(self, policy: Policy) -> None:
        """Nothing: the step's entry follows."""

    def step(self, step: Step) -> None:
        """Add an entry."""
        with self.changed:
            self.steps.append(step)
            if step.weights:
                self.marks.setdefault(step.step, (step.version, len(self.steps)))
                self.changed.notify_all()


class Player:
    """The model of a folder with the weights of any version, which plays games."""

    def __init__(self, model: Path, game: LearnedGame, held: HeldWeights, seed: int) -> None:
        self._game, self._held, self._version = game, held, 0
        self._model, self._tokenizer = load_model(model), load_tokenizer(model)
        end = self._tokenizer.eos_token_id
        self._sampler = Sampler(
            self._model, pad_id=self._tokenizer.pad_token_id, end_ids=[end], seed=seed
        )

    def play(self, version: int, secrets: Iterable[int], *, temperature: float = 1.0) -> list[Any]:
        """Games with the weights of a version, as `played_groups.play` returns them."""
        if version != self._version:
            self._model.load_state_dict(self._held.of[version])
            self._version = version
        return play(
            self._sampler, self._tokenizer, [*secrets],
            temperature=temperature, begin=self._game.begin,
        )  # fmt: skip


class MixedGroups:
    """A source of groups: played when they are wanted, and mixed with old ones.

    Attributes:
        played: Fresh groups so far.
    """

    def __init__(
        self, game: LearnedGame, player: Player, ledger: HeldLedger, cursor: Cursor,
        mixer: Mixer | None, rows_per_step: int,
    ) -> None:  # fmt: skip
        self.played = 0
        self._game, self._player, self._ledger, self._cursor = game, player, ledger, cursor
        self._mixer, self._rows = mixer, rows_per_step
        self._episodes: dict[str, Any] = {}
        self._ready: deque[EpisodeGroup] = deque()
        self._mixed = 0

    def next(self, timeout_s: float) -> EpisodeGroup | None:
        """The next group; None while the step whose weights are to play it is not done."""
        if not self._ready:
            accepted = self._cursor.position.step * self._rows + self._cursor.waiting
            step = max(0, accepted // self._rows - LAG)
            with self._ledger.changed:
                if not self._ledger.changed.wait_for(lambda: step in self._ledger.marks, timeout_s):
                    return None
                version, entries = self._ledger.marks[step]
            self._play(version, entries)
        return self._ready.popleft()

    def ended(self) -> bool:
        """Never: the run ends when it has learned."""
        return False

    def close(self) -> None:
        """Nothing is held."""

    def _play(self, version: int, entries: int) -> None:
        secrets = self._game.secrets
        games = self._player.play(version, secrets * TOGETHER)
        while self._mixer is not None and self._mixer.steps < entries:
            self._mixer.step(self._mixer.steps, self._ledger.steps[self._mixer.steps])
        for at in range(0, len(games), len(secrets)):
            group = group_of(
                games[at : at + len(secrets)],
                offset=self.played,
                version=version,
                reward_of=self._game.reward_of,
            )
            self.played += 1
            self._ready += self._mixed_with(group)

    def _mixed_with(self, group: EpisodeGroup) -> list[EpisodeGroup]:
        """A fresh group and what is drawn behind it."""
        if self._mixer is None:
            return [group]
        self._episodes |= {pointer.episode_id: episode for pointer, episode in group.episodes}
        return [self._group(one) for one in self._mixer.batch(group.offset, group.batch)]

    def _group(self, batch: Batch) -> EpisodeGroup:
        """A batch of the mixed topic with its episodes."""
        offset, self._mixed = self._mixed, self._mixed + 1
        pairs = [(pointer, self._episodes[pointer.episode_id]) for pointer in batch.episodes]
        return EpisodeGroup(offset, batch, tuple(pairs))
