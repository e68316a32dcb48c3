"""Checks that a model can be trained on packed trees, before a version of it is published.

Rows share their beginnings (see `attention`), so a layer must look along a token's own path and at
nothing else. The configuration is read first. Then a tree of two rows runs through the model, and
the result must equal that of its own attention on each row alone. So a layer that would fail, or
silently compute something else, shows here and not in the first step.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from transformers import AttentionInterface, AutoConfig
from trl.trainer.utils import disable_dropout_in_model

from odradek.trainer.errors import NoModel, NonFiniteWeights, UnsuitedModel
from odradek.trainer.kernels.compile import compile_layers
from odradek.trainer.kernels.liger import use_liger
from odradek.trainer.plan.memory import WEIGHT, StepMemory
from odradek.trainer.plan.prefix_tree import pack
from odradek.trainer.saving.start_folder import check_folder
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step import attention
from odradek.trainer.step.logprobs import Targets
from odradek.trainer.step.precision import MIXED
from odradek.trainer.weights.finite import non_finite

log = logging.getLogger("odradek")
KNOWN_LAYERS: Final = frozenset({"full_attention", "sliding_attention"})
SHARED: Final = 7
"""Tokens that the two rows of the trial have in common."""
LENGTH: Final = 19
"""Tokens of each of the two rows."""
RANDOM: Final = ("drop", "jitter")
"""What the names of a module's rates hold that are random while it trains."""
CLOSE: Final = 1e-3
"""How far the median log probability may be off: experts may be chosen by a hair."""
_ELSE: Final = "choose another model (docs/train-on-a-gpu.md says which)"


def check_config(path: str, *, verified: bool = False) -> None:
    """Look at a model's folder, and refuse what no packed tree can run through.

    Args:
        path: The model's folder.
        verified: See `check_folder`.

    Raises:
        NoModel: It is no whole folder of transformers.
        UnsuitedModel: With what the model has that cannot be trained.
    """
    check_folder(path, verified=verified)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise NoModel(f"the model in {path} cannot be loaded: {error}") from error
    if why := _unsuited(config):
        raise UnsuitedModel(f"the model in {path} cannot be trained: {why}")


def _unsuited(config: Any) -> str:
    """What a configuration has that a packed tree cannot run through, or ""."""
    text = config.get_text_config()
    strange = sorted(set(getattr(text, "layer_types", None) or ()) - KNOWN_LAYERS)
    alibi = getattr(text, "alibi", False) or text.model_type in {"bloom", "mpt"}
    faults = {
        "it is an encoder and a decoder": getattr(config, "is_encoder_decoder", False),
        f"it has {', '.join(strange)} layers, which run across the rows of a tree": strange,
        "its attention is cut (attention_chunk_size)": getattr(text, "attention_chunk_size", None),
        "its attention is capped (attn_logit_softcapping)": getattr(
            text, "attn_logit_softcapping", None
        ),
        "its attention is biased by distance (ALiBi)": alibi,
    }
    return next((f"{why}; {_ELSE}" for why, there in faults.items() if there), "")


@contextlib.contextmanager
def loading(path: str) -> Iterator[None]:
    """Say in one line why libraries do not load a model, or do not want it.

    Raises UnsuitedModel.
    """
    try:
        yield
    except KeyError as error:
        raise UnsuitedModel(
            f"the model in {path} cannot be trained: it knows no attention but its own ({error}); "
            f"{_ELSE}"
        ) from error
    except (OSError, ValueError, NotImplementedError) as error:
        raise UnsuitedModel(f"the model in {path} cannot be trained: {error}") from error


def prepare(model: Any, path: str, settings: TrainerSettings) -> None:
    """Switch off a model's dropout, give it its kernels, and run a tree through it.

    Args:
        model: With our attention and our head.
        path: Where it is from.
        settings: Of the run.

    Raises UnsuitedModel where that fails, or gives other log probabilities than its own attention,
    and NonFiniteWeights.
    """
    if name := non_finite(model.named_parameters()):
        raise NonFiniteWeights(
            f"the model in {path} cannot be trained: {name!r} holds something infinite or no number"
        )
    still(model)
    if settings.liger:
        use_liger(model)
    was_training = model.training
    try:
        off = _difference(model)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise UnsuitedModel(
            f"the model in {path} cannot be trained: a packed tree does not run through it "
            f"({type(error).__name__}: {error}); {_ELSE}"
        ) from error
    finally:
        model.train(was_training)
    if not off <= CLOSE:
        raise UnsuitedModel(
            f"the model in {path} cannot be trained: its log probabilities of rows in a tree are "
            f"off by {off:.2g} from those of the same rows alone; {_ELSE}"
        )
    if settings.compile_layers:
        compile_layers(model)


def step_memory(model: Any, settings: TrainerSettings, precision: str) -> StepMemory:
    """What a step of a model will take."""
    text = model.config.get_text_config()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    read = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    # An adapter's reference is the model without it, and its proximal policy another adapter.
    copies = (settings.tis > 0) + (settings.kl > 0 and not settings.lora_rank)
    copied = trained if settings.lora_rank else sum(p.numel() for p in model.parameters())
    return StepMemory(
        trained=trained,
        frozen=read // WEIGHT + copied * copies,
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        width=2 if precision == MIXED else 4,
        checkpointed=settings.gradient_checkpointing,
        optimizer=settings.optimizer,
        adapter=settings.lora_rank > 0,
    )


def say_memory(model: Any, settings: TrainerSettings, precision: str) -> None:
    """Say what will fit into the card, where there is one."""
    if model.device.type == "cuda":
        room = torch.cuda.get_device_properties(model.device).total_memory
        log.info(
            "memory: %s", step_memory(model, settings, precision).line(room, settings.micro_tokens)
        )


def still(model: Any) -> None:
    """Switch off dropout and noise: a ratio compares two policies, not two draws of one."""
    disable_dropout_in_model(model)
    for module in model.modules():
        for name, value in vars(module).items():  # rates of functions that are no modules
            if isinstance(value, float) and any(kind in name for kind in RANDOM):
                setattr(module, name, 0.0)


class _Counted:
    """Our attention, which counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return attention.tree_attention(*args, **kwargs)


@torch.no_grad()
def _difference(model: Any) -> float:
    """How far the log probabilities of two rows in one tree are from those of each row alone."""
    vocabulary = model.get_input_embeddings().num_embeddings
    rows = np.random.default_rng(0).integers(0, vocabulary, (2, LENGTH))
    rows[1, :SHARED] = rows[0, :SHARED]
    tree = pack(list(rows))
    paths = torch.tensor(np.stack(tree.paths), device=model.device)
    at = paths[:, SHARED - 1 : -1].flatten()
    labels = torch.tensor(rows, device=model.device)[:, SHARED:].flatten()
    counted = _Counted()
    AttentionInterface.register(attention.NAME, counted)
    model.train()
    try:
        together = model(
            input_ids=torch.tensor(tree.ids, device=model.device)[None],
            position_ids=torch.tensor(tree.positions, device=model.device)[None],
            tree_mask=attention.TreeMask(tree, model.device),
            targets=Targets(at, labels, torch.ones(len(at), device=model.device)),
        ).logprobs.float()
    finally:
        attention.register()
    layers = int(model.config.get_text_config().num_hidden_layers)
    if counted.calls < layers:
        raise NotImplementedError(f"{layers - counted.calls} of {layers} layers are no attention")
    model.eval()
    model.set_attn_implementation("eager")
    try:
        alone = torch.cat([_alone(model, torch.tensor(row).to(model.device)) for row in rows])
    finally:
        model.set_attn_implementation(attention.NAME)
    return float((together - alone).abs().median())


def _alone(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Log probabilities of one row's own tokens, by the model's own attention."""
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
    logprobs: torch.Tensor = logits.log_softmax(-1).gather(1, ids[1:, None])[SHARED - 1 :, 0]
    return logprobs
