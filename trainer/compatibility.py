"""Settings that cannot work together, each pair with its reason; and settings without effect.

Pure. Whoever starts a trainer with such a pair reads the line at once, not after the run has
stopped moving.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from odradek.schemas.errors import UnknownTopic
from odradek.schemas.topics import BATCHES, find

if TYPE_CHECKING:
    from odradek.trainer.settings import TrainerSettings

LEAST_ROW: Final = 2
"""Tokens of the shortest row that teaches: one to begin with, and one that was sampled."""
COARSE: Final = 1e-5
"""Learning rates below are lost on weights in bfloat16: eight steps of Adam changed 0.3 % of the
tiny model's matrices at 1e-6 and 2.7 % at 1e-5, where they changed 97 % in float32."""
LEAST_CAP: Final = 0.01
"""Below it truncated importance sampling leaves nothing of a gradient."""
LONGEST_NAME: Final = 256
"""Characters of a name on the wire."""


def contradictions(settings: "TrainerSettings") -> Iterator[str]:
    """Each pair of settings that cannot work, in a line that names both and says why."""
    yield from _of_steps(settings)
    yield from _of_numbers(settings)
    yield from _of_places(settings)


def _of_steps(settings: "TrainerSettings") -> Iterator[str]:
    if settings.rows_per_step % settings.micro_rows:
        yield (
            f"micro_rows ({settings.micro_rows}) must divide rows_per_step "
            f"({settings.rows_per_step})"
        )
    # Just before a transfer the engines' weights are sync_every - 1 steps old. Rows that are older
    # than max_staleness are refused, so no step would come that leads to the next transfer.
    oldest = min(settings.sync_every, settings.max_steps) - 1
    if oldest > settings.max_staleness and not settings.is_replay:
        yield (
            f"sync_every ({settings.sync_every}) lets engines' weights grow {oldest} steps old, "
            f"and rows older than max_staleness ({settings.max_staleness}) are refused: training "
            f"would stop for ever. Set sync_every to {settings.max_staleness + 1} or less, or "
            f"max_staleness to {oldest} or more"
        )
    if 0 < settings.max_row_tokens < LEAST_ROW:
        yield (
            f"max_row_tokens ({settings.max_row_tokens}) refuses every row, so rows_per_step is "
            f"never reached: a row that teaches has {LEAST_ROW} tokens or more; 0 for no bound"
        )


def _of_numbers(settings: "TrainerSettings") -> Iterator[str]:
    if settings.dtype == "bfloat16" and settings.learning_rate < COARSE:
        yield (
            f"dtype = bfloat16 keeps 8 bits of a weight, and steps of learning_rate "
            f"({settings.learning_rate:g}) are smaller, so hardly a weight would move: set dtype = "
            f"float32, or learning_rate to {COARSE:g} or more"
        )
    if 0 < settings.tis < LEAST_CAP:
        yield (
            f"tis ({settings.tis:g}) caps the weight of every token near 0, so nothing is learned: "
            f"give a cap of {LEAST_CAP:g} or more (2 is usual), or 0 to leave it out"
        )
    if settings.learning_rate * settings.weight_decay >= 1:
        yield (
            f"weight_decay ({settings.weight_decay:g}) at learning_rate "
            f"({settings.learning_rate:g}) takes all of each weight away in a step: their product "
            "must be below 1"
        )
    if settings.loss != "cispo" and settings.epsilon_low == settings.epsilon_high == 0:
        yield (
            "epsilon_low (0) and epsilon_high (0) clip every token that training has moved, so "
            f"learning stops where it began: give {settings.loss} room on one side at least"
        )


def _of_places(settings: "TrainerSettings") -> Iterator[str]:
    topic = settings.batches_topic
    if settings.replay_of and not settings.is_replay:
        yield (
            f"replay_of ({settings.replay_of}) is read for a replay only, and batches_topic is the "
            f"live {BATCHES.name}: name the topic that `odradek replay --to` wrote"
        )
    if settings.replay_of and settings.replay_of == settings.run:
        yield (
            f"replay_of and run are both {settings.run!r}: the ledger could not tell the replay "
            "from what it repeats; name the run otherwise"
        )
    if settings.is_replay and _is_ours(topic):
        yield (
            f"batches_topic ({topic}) holds no batches: name {BATCHES.name}, or the topic that "
            "`odradek replay --to` wrote"
        )
    for name in ("run", "policy_name"):
        length = len(getattr(settings, name).strip())
        if not 0 < length <= LONGEST_NAME:
            what = "run" if name == "run" else "policy (of a replay, with run)"
            yield f"{what} has {length} characters, and the log takes names of 1 to {LONGEST_NAME}"
    if settings.model and _within(settings.model, str(settings.output_dir)):
        yield (
            f"model ({settings.model}) lies in output_dir ({settings.output_dir}), where old "
            "checkpoints are deleted and this run would go on from its own: copy the model "
            "elsewhere, or choose another output_dir"
        )


def without_effect(settings: "TrainerSettings") -> Iterator[str]:
    """Each setting that somebody gave and that nothing reads beside the others, in a line."""
    given = settings.model_fields_set
    idle = {
        "fixed_length": (settings.loss != "dr_grpo", f"loss = {settings.loss}"),
        "epsilon_low": (settings.loss == "cispo", "loss = cispo"),
        "engine_timeout_s": (not settings.engines, "no engine_urls"),
        "threads": (settings.device.startswith("cuda"), f"device = {settings.device}"),
    }
    for name, (unread, because) in idle.items():
        if unread and name in given:
            yield f"{name} has no effect with {because}"
    if not settings.engines and not settings.is_replay:
        yield (
            "no engine_urls: engines that do not follow the policy on the log by themselves keep "
            "their weights, and rows older than max_staleness are refused"
        )


def _is_ours(topic: str) -> bool:
    """Whether a topic is one of the table that has something else than batches on it."""
    try:
        return find(topic).name != BATCHES.name
    except UnknownTopic:
        return False


def _within(path: str, folder: str) -> bool:
    inner, outer = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100 - links stay
    return inner == outer or inner.startswith(outer + os.sep)
