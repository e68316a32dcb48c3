"""Plain TRL `GRPOTrainer` over the bus: a `rollout_func` that deploys tasks to agents.

For people who stay on the synchronous trainer. TRL asks for one row per prompt, in order, and with
a `rollout_func` of one's own it pushes no weights: `BusRollouts` does both.
"""

import asyncio
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from odradek.infra.client import Result, fresh
from odradek.infra.client import deploy as deploy_tasks
from odradek.schemas.events import Episode, Task
from odradek.trainer.rows import arrays_of, spans_of

log = logging.getLogger("odradek")

Deploy = Callable[[Sequence[Task], float], Any]
"""`await deploy(tasks, timeout)`: one Result per task, in order."""


class Transfer(Protocol):
    """What carries weights to the engines; `weights.directory.DirectoryTransfer` is one."""

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


@dataclass
class BusRollouts:
    """A `rollout_func` for TRL's `GRPOTrainer`.

    Each prompt becomes one task with one sample: TRL repeats a prompt `num_generations` times and
    compares those itself. The reward that the agents' judges gave comes along as `reward`; pass
    `reward_of` as TRL's reward function.

    Attributes:
        agent: Which agent plays.
        timeout: Seconds to wait for one call's tasks.
        transfer: Carries the weights to the engines before each call; None: they stay.
        deploy: How tasks are handed out; `direct` generation from the engine has this shape, too.
        task_of: Makes a task from a prompt; the default reads the last message's text, as JSON
            where it is JSON.
        counts: Samples that failed, and episodes that had more than one sequence.
    """

    agent: str
    timeout: float = 600.0
    transfer: Transfer | None = None
    deploy: Deploy = deploy_tasks
    task_of: Callable[[Any], Task] | None = None
    counts: dict[str, int] = field(default_factory=lambda: {"failed": 0, "several": 0})
    _step: int = field(default=-1, repr=False)

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
        """Play one episode per prompt.

        Returns:
            `prompt_ids`, `completion_ids` and `logprobs` (a row per prompt, in order), `env_mask`
            (1 where the policy sampled, 0 where the environment spoke) and `reward`. A failed
            sample has an empty completion and no reward.
        """
        self._push(trainer)
        make = self.task_of or self._task
        tasks = fresh([make(prompt) for prompt in prompts])
        results: list[Result] = asyncio.run(_await(self.deploy(tasks, self.timeout)))
        rows = [self._row(result, trainer) for result in results]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _push(self, trainer: Any) -> None:
        """Send the weights if a step was made since the last time; TRL does so only with vLLM."""
        step = int(trainer.state.global_step)
        if self.transfer is None or step == self._step:
            return
        if self._step < 0:
            self.transfer.init_weight_transfer()
        self._step = step
        self.transfer.version += 1
        model = trainer.accelerator.unwrap_model(trainer.model)
        self.transfer.send_weights((n, p.detach()) for n, p in model.named_parameters())
        self.transfer.resume()

    def _task(self, prompt: Any) -> Task:
        text = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
        try:
            given = json.loads(text)
        except ValueError:
            given = text
        return Task(
            task_id="made-fresh",
            agent=self.agent,
            input=msgspec.Raw(msgspec.json.encode(given)),
            item=text[:200],
            group_size=1,
        )

    def _row(self, result: Result, trainer: Any) -> dict[str, Any]:
        episode = result.episode
        if episode is None or episode.reward is None or not episode.sequences:
            self.counts["failed"] += 1
            end = trainer.processing_class.eos_token_id
            # TRL cannot train on a row without a token: one end token that the mask takes out.
            return {
                "prompt_ids": [end],
                "completion_ids": [end],
                "logprobs": [0.0],
                "env_mask": [0],
                "reward": None,
            }
        return self._sampled(episode)

    def _sampled(self, episode: Episode) -> dict[str, Any]:
        sequences = episode.sequences
        if len(sequences) > 1:
            self.counts["several"] += 1
            warnings.warn(
                f"episode {episode.episode_id} has {len(sequences)} sequences, and TRL's "
                "synchronous trainer takes one: the longest is kept",
                stacklevel=2,
            )
        longest = max(sequences, key=lambda sequence: len(sequence.ids))
        ids, mask, logprobs = arrays_of(longest)
        first = next(spans_of(mask), (len(ids), len(ids)))[0]
        return {
            "prompt_ids": ids[:first].tolist(),
            "completion_ids": ids[first:].tolist(),
            "logprobs": logprobs[first:].tolist(),
            "env_mask": mask[first:].astype(int).tolist(),
            "reward": episode.reward,
        }


async def _await(results: Any) -> list[Result]:
    found: list[Result] = await results
    return found


def rollout_func(
    agent: str, *, timeout: float = 600.0, transfer: Transfer | None = None, **more: Any
) -> BusRollouts:
    """A `rollout_func` for `GRPOTrainer(rollout_func=...)`; see `BusRollouts`."""
    return BusRollouts(agent=agent, timeout=timeout, transfer=transfer, **more)


def reward_of(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    reward: Sequence[float | None],
    **_: Any,
) -> list[float | None]:
    """TRL's reward function for bus rollouts: what the judges said. None: not to be compared."""
    del prompts, completions
    return list(reward)
