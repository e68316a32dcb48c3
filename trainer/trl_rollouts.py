"""A `rollout_func` for TRL's `GRPOTrainer` that deploys prompts to agents, as tasks over the bus.

For people who stay on the synchronous trainer; `plain` has the class of trainer that goes with it.
TRL asks for one row per prompt, in order, and with a `rollout_func` of one's own it pushes no
weights: `BusRollouts` does both.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from odradek.infra.client import TaskResult, fresh
from odradek.infra.client import deploy as deploy_tasks
from odradek.schemas.events import Batch, Episode, Pointer, Task
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.rows import EpisodeGroup, Row, fault_of, rows_of, spans_of
from odradek.trainer.feed.sampling import Take

log = logging.getLogger("odradek")

Deploy = Callable[[Sequence[Task], float], Any]
"""`await deploy(tasks, timeout)`: one TaskResult per task, in order."""


class Transfer(Protocol):
    """Brings weights to the engines, as `weights.directory.DirectoryTransfer` does."""

    version: int

    def init_weight_transfer(self) -> None:
        """Set up."""
        ...

    def send_weights(self, iterator: Any) -> None:
        """Write the parameters."""
        ...

    def resume(self) -> None:
        """Have the engines load them."""
        ...


class PlayedSequence(NamedTuple):
    """A sequence of an episode as TRL wants it; `env_mask` is 1 where the policy sampled."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    env_mask: list[int]


@dataclass
class BusRollouts:
    """A `rollout_func` for `BusGRPOTrainer`, or any `GRPOTrainer` with `BusTraining` before it.

    Each prompt becomes one task with one sample: TRL repeats a prompt `num_generations` times and
    compares those itself. The reward that the agents' judges gave comes along as `reward`; pass
    `reward_of` as TRL's reward function.

    Attributes:
        agent: Which agent plays.
        timeout: Seconds to wait for one call's tasks.
        transfer: Carries the weights to the engines before each call.
        frozen: In place of `transfer`: the engine keeps its weights on purpose, and what it samples
            drifts away from the policy, which ratios and clipping show.
        deploy: How tasks are handed out; `direct` generation from the engine has this shape, too.
        task_of: Makes a task from a prompt; the default reads the last message's text, as JSON
            where it is JSON.
        counts: Samples that failed, episodes of more than one sequence, and sequences that were
            left out: sampled in another way than the trainer computes, or with log probabilities
            that would ruin a step.

    Raises:
        BadSettings: Neither `transfer` nor `frozen` is given, or both.
    """

    agent: str
    timeout: float = 600.0
    transfer: Transfer | None = None
    frozen: bool = False
    deploy: Deploy = deploy_tasks
    task_of: Callable[[Any], Task] | None = None
    counts: dict[str, int] = field(
        default_factory=lambda: {"failed": 0, "several": 0, "left_out": 0}
    )
    _step: int = field(default=-1, repr=False)
    _set_up: bool = field(default=False, repr=False)
    _further: list[tuple[int, PlayedSequence]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Hold the two ways of an engine's weights against each other."""
        if self.transfer is None and not self.frozen:
            raise BadSettings(
                "rollout_func has no transfer: the engine would keep its first weights while the "
                "policy moves on. Pass transfer=DirectoryTransfer(...), or frozen=True to mean it"
            )
        if self.transfer is not None and self.frozen:
            raise BadSettings("rollout_func has a transfer and frozen=True: give one of them")

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode per prompt.

        Returns:
            `prompt_ids`, `completion_ids` and `logprobs` (a row per prompt, in order), `env_mask`
            (1 where the policy sampled, 0 where the environment spoke) and `reward`. A sample of
            which nothing can be trained on has an empty mask. Further sequences wait in
            `take_further`.

        Raises:
            BadSettings: The trainer would ignore the recorded log probabilities.
        """
        if not getattr(trainer, "trains_recorded", False):
            raise BadSettings(
                f"{type(trainer).__name__} ignores the log probabilities that the engine recorded: "
                "use odradek.trainer.BusGRPOTrainer, or class Yours(BusTraining, GRPOTrainer)"
            )
        self._push(trainer)
        make = self.task_of or self._task
        tasks = fresh([make(prompt) for prompt in prompts])
        results: list[TaskResult] = asyncio.run(_await(self.deploy(tasks, self.timeout)))
        self._further.clear()
        first, rewards = [], []
        for index, result in enumerate(results):
            played, reward = self._played(result, trainer)
            first.append(played[0])
            rewards.append(reward)
            self._further += [(index, row) for row in played[1:]]
        columns = [list(column) for column in zip(*first, strict=True)]
        return dict(zip(PlayedSequence._fields, columns, strict=True)) | {"reward": rewards}

    def take_further(self) -> list[tuple[int, PlayedSequence]]:
        """Sequences of the last call beyond the first of their sample, with the prompt's index."""
        further, self._further = self._further, []
        return further

    def _push(self, trainer: Any) -> None:
        """Send the weights if a step was made since the last time; TRL does so only with vLLM."""
        step = int(trainer.state.global_step)
        if self.transfer is None or step == self._step:
            return
        if not self._set_up:
            self.transfer.init_weight_transfer()
            self._set_up = True
        self.transfer.version += 1
        model = trainer.accelerator.unwrap_model(trainer.model)
        self.transfer.send_weights((n, p.detach()) for n, p in model.named_parameters())
        self.transfer.resume()
        # Raising above, nobody may think that the engines have them: the next call sends them
        # again, under a number that no engine had.
        self._step = step

    def _task(self, prompt: Any) -> Task:
        text = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
        try:
            task_input = json.loads(text)
        except ValueError:
            task_input = text
        return Task(
            task_id="made-fresh",
            agent=self.agent,
            input=msgspec.Raw(msgspec.json.encode(task_input)),
            item=text[:200],
            group_size=1,
        )

    def _played(
        self, result: TaskResult, trainer: Any
    ) -> tuple[list[PlayedSequence], float | None]:
        """Every sequence of a sample that can be trained on, and the sample's reward."""
        episode = result.episode
        rows: list[Row] = []
        if episode is not None and episode.reward is not None:
            vocabulary = trainer.model.get_input_embeddings().num_embeddings
            rows = _rows(episode, trainer.temperature, vocabulary)
            self.counts["left_out"] += len(episode.sequences) - len(rows)
            self.counts["several"] += len(rows) > 1
        # What a sample is worth counts for the others of its group, whatever is trained of it.
        reward = None if episode is None else episode.reward
        if rows:
            return [_as_trl(row) for row in rows], reward
        self.counts["failed"] += 1
        end = trainer.processing_class.eos_token_id
        # TRL cannot train on a row without a token: one end token that the mask takes out.
        return [PlayedSequence([end], [end], [0.0], [0])], reward


def _rows(episode: Episode, temperature: float, vocabulary: int) -> list[Row]:
    """The rows of one episode, on its own: TRL computes the advantages, at one temperature.

    A reply that was sampled at another temperature, or not from the whole distribution, is masked.
    """
    pointer = Pointer(
        episode_id=episode.episode_id, sample=0, topic="", partition=0, offset=0, digest="",
        reward=episode.reward or 0.0,
    )  # fmt: skip
    batch = Batch(task_id=episode.task_id, group_size=1, episodes=(pointer,))
    group = EpisodeGroup(0, batch, ((pointer, episode),))
    rows = []
    for row in rows_of(group, take=Take(temperature=temperature)):
        warm = 1.0 if row.temperatures is None else row.temperatures
        alike = row.mask & np.isclose(warm, temperature)
        if alike.any() and not row.unfit and not fault_of(row, vocabulary):
            rows.append(replace(row, mask=alike, logprobs=np.where(alike, row.logprobs, 0)))
    return rows


def _as_trl(row: Row) -> PlayedSequence:
    first = next(spans_of(row.mask))[0]
    return PlayedSequence(
        row.ids[:first].tolist(),
        row.ids[first:].tolist(),
        row.logprobs[first:].tolist(),
        row.mask[first:].astype(int).tolist(),
    )


async def _await(results: Any) -> list[TaskResult]:
    finished: list[TaskResult] = await results
    return finished


def rollout_func(
    agent: str,
    *,
    timeout: float = 600.0,
    transfer: Transfer | None = None,
    frozen: bool = False,
    **more: Any,
) -> BusRollouts:
    """A `rollout_func` for `BusGRPOTrainer(rollout_func=...)`; see `BusRollouts`."""
    return BusRollouts(agent=agent, timeout=timeout, transfer=transfer, frozen=frozen, **more)


def reward_of(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    reward: Sequence[float | None],
    **_: Any,
) -> list[float | None]:
    """TRL's reward function for bus rollouts: what the judges gave. None: not to be compared."""
    del prompts, completions
    return list(reward)
