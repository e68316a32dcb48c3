"""TRL's synchronous `GRPOTrainer` on episodes that were played over the bus.

TRL 1.16 takes its own log probabilities as those of the sampler unless it drives vLLM itself, so a
`rollout_func`'s are padded, carried and never compared: the ratio is 1 however far engine and
policy are apart. It also takes one row per prompt. `BusTraining` puts both right.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch.nn.functional import pad
from trl import GRPOTrainer

from odradek.trainer.errors import BadSettings
from odradek.trainer.trl_rollouts import BusRollouts, PlayedSequence

Tensor = torch.Tensor

BY_ROW: Final = frozenset({"grpo", "sapo"})
"""Losses that are means over rows of means over tokens: an episode's rows share its weight."""
CONFIG: Final = 2
"""Where `args` stands among the arguments of TRL's constructor."""
BY_COUNT: Final = BY_ROW | {"dr_grpo", "luspo"}
"""Losses that TRL divides by the rows of a micro-batch: rows of ours must not dilute the others."""


class BusTraining:
    """Before `GRPOTrainer`, or a subclass of it, among a class's bases.

    The log probabilities that the engine recorded are those of the old policy in TRL's loss, so
    ratios, clipping and their metrics are what they say. All sequences of an episode are trained
    on, with its advantage. In the losses that average over rows (grpo, sapo) they weigh one row
    together; in the others each token weighs the same. With `beta`, each sequence's KL weighs as a
    row.
    """

    trains_recorded: Final = True
    """What `BusRollouts` looks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `GRPOTrainer`. Raises BadSettings for what does not go with episodes from the bus."""
        config = kwargs.get("args", args[CONFIG] if len(args) > CONFIG else None)
        if isinstance(kwargs.get("rollout_func"), BusRollouts) and config is not None:
            _refuse_arguments(config)  # before TRL looks for a vLLM server
        super().__init__(*args, **kwargs)
        _refuse_surroundings(self)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        score = super()._generate_and_score_completions  # type: ignore[misc] # of GRPOTrainer
        output: dict[str, Any] = score(inputs)
        rollouts = self.rollout_func  # type: ignore[attr-defined] # of GRPOTrainer
        if not isinstance(rollouts, BusRollouts):
            return output
        further = rollouts.take_further()
        if further:
            output = self._widened(output, further)
        output["old_per_token_logps"] = output["sampling_per_token_logps"]
        output["num_items_in_batch"] = (output["completion_mask"] * output["tool_mask"]).sum()
        return output

    def _widened(
        self, output: dict[str, Any], further: Sequence[tuple[int, PlayedSequence]]
    ) -> Any:
        trainer: Any = self
        rows = len(output["advantages"])
        wide = _widened(
            output,
            further,
            parts=trainer.args.steps_per_generation if trainer.model.training else 1,
            pad_id=trainer.processing_class.pad_token_id,
            loss=trainer.loss_type,
        )
        if "ref_per_token_logps" in output:
            ids = torch.cat([wide["prompt_ids"], wide["completion_ids"]], dim=1)[rows:]
            mask = torch.cat([wide["prompt_mask"], wide["completion_mask"]], dim=1)[rows:]
            width = wide["completion_ids"].size(1)
            with torch.no_grad():
                more, _, _ = trainer._get_per_token_logps_and_entropies(  # noqa: SLF001 - our base's
                    trainer.ref_model, ids, mask, width, batch_size=len(ids)
                )
            own = output["ref_per_token_logps"]
            wide["ref_per_token_logps"] = torch.cat([pad(own, (0, width - own.size(1))), more])
        return wide


class BusGRPOTrainer(BusTraining, GRPOTrainer):  # type: ignore[misc] # TRL is untyped
    """TRL's `GRPOTrainer` for `rollout_func=odradek.trainer.rollout_func(...)`."""


def _refuse_arguments(config: Any) -> None:
    """Raise BadSettings for arguments of TRL's that episodes from the bus cannot go with."""
    refused = {
        "use_vllm": "agents play against the engine behind the proxy",
        "mask_truncated_completions": "an episode's last token is not always the policy's",
    }
    for name, why in refused.items():
        if getattr(config, name):
            raise BadSettings(f"{name} does not go with rollout_func(...) of the bus: {why}")


def _refuse_surroundings(trainer: Any) -> None:
    """Raise BadSettings for what only a trainer that is made can tell."""
    if not isinstance(trainer.rollout_func, BusRollouts):
        return
    if trainer.accelerator.num_processes > 1:
        raise BadSettings(
            "rollout_func(...) of the bus goes with one process: each would deploy tasks and send "
            "weights of its own"
        )
    if trainer.beta and trainer.ref_model is None:
        raise BadSettings(
            "beta with an adapter does not go with rollout_func(...) of the bus: the reference is "
            "wanted as a model of its own"
        )


def _widened(
    output: dict[str, Any],
    further: Sequence[tuple[int, PlayedSequence]],
    *,
    parts: int,
    pad_id: int,
    loss: str,
) -> dict[str, Any]:
    """A scored generation batch of TRL's with more rows.

    Args:
        output: Tensors of n rows: prompts padded to the left, completions to the right.
        further: Which row's sample, and another sequence of it.
        parts: Into how many equal micro-batches TRL will split it: what is missing is filled up
            with rows of which nothing is trained on.
        pad_id: Stands where a row is shorter than the others.
        loss: TRL's `loss_type`, which says what a row weighs.
    """
    rows, device = len(output["advantages"]), output["advantages"].device
    empty = PlayedSequence([pad_id], [pad_id], [0.0], [0])
    filler = [(0, empty)] * (-(rows + len(further)) % parts)
    more = [*further, *filler]
    left = max(output["prompt_ids"].size(1), *(len(row.prompt_ids) for _, row in more))
    right = max(output["completion_ids"].size(1), *(len(row.completion_ids) for _, row in more))

    def joined(name: str, values: list[Any], fill: float) -> Tensor:
        own = output[name]
        prompt = name.startswith("prompt")
        width = left if prompt else right
        padded = [pad(own, _around(own.size(1), width, prompt=prompt), value=fill)]
        for sequence in values:
            row = torch.tensor([sequence], dtype=own.dtype, device=own.device)
            padded.append(pad(row, _around(len(sequence), width, prompt=prompt), value=fill))
        return torch.cat(padded)

    played = [row for _, row in more]
    share = Counter(index for index, _ in further)
    weight = torch.tensor([1 + share[at] for at in range(rows)], device=device)
    worth = output["advantages"] / (weight if loss in BY_ROW else 1)
    extra = torch.cat([worth[[index for index, _ in further]], worth.new_zeros(len(filler))])
    dilution = (rows + len(more)) / rows if loss in BY_COUNT else 1.0
    return {
        **output,
        "prompt_ids": joined("prompt_ids", [row.prompt_ids for row in played], pad_id),
        "prompt_mask": joined("prompt_mask", [[1] * len(row.prompt_ids) for row in played], 0),
        "completion_ids": joined("completion_ids", [row.completion_ids for row in played], pad_id),
        "completion_mask": joined(
            "completion_mask", [[1] * len(row.completion_ids) for row in played], 0
        ),
        "tool_mask": joined("tool_mask", [row.env_mask for row in played], 0),
        "sampling_per_token_logps": joined(
            "sampling_per_token_logps", [row.logprobs for row in played], 0.0
        ),
        "advantages": torch.cat([worth, extra]) * dilution,
    }


def _around(length: int, width: int, *, prompt: bool) -> tuple[int, int]:
    """Padding before and after a row: prompts end together, completions begin together."""
    return (width - length, 0) if prompt else (0, width - length)
