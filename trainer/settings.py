"""Settings of the trainer, from `ODRADEK_TRAINER_*`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from odradek.infra.runtime.addresses import roots
from odradek.infra.runtime.settings import CheckedSettings, Seed, from_environment
from odradek.schemas.sampling import COLDEST, HOTTEST
from odradek.schemas.topics import BATCHES, MIXED
from odradek.trainer.commit.cadence import Cadence
from odradek.trainer.feed.advantages import PASS_K, Baseline, Scale
from odradek.trainer.feed.rows import Weigh
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.feed.sampling import Truncated
from odradek.trainer.learning import idle_in_learning, of_learning
from odradek.trainer.levels import LEVELS, Level
from odradek.trainer.loss_table import Correction, KlForm, LossName
from odradek.trainer.placement import holds_others, within

Precision = Literal["auto", "float32", "bfloat16"]
Schedule = Literal["constant", "linear", "cosine"]
Optimizer = Literal["adamw", "adamw_8bit", "adamw_paged", "adamw_8bit_paged"]
TransferDtype = Literal["auto", "float32", "bfloat16"]

LEAST_ROW: Final = 2
"""Tokens of the shortest row that teaches: one to begin with, and one that was sampled."""
HALVES: Final = frozenset({"float16", "fp16", "half"})
"""Names of the 16 bits that the trainer refuses."""
FORMER_SCALES: Final = {"true": "group", "1": "group", "false": "none", "0": "none"}
LONGEST_NAME: Final = 256
"""Characters of a name on the wire."""
LEADER: Final = "main"
"""Name of the run that leads, where nobody says another."""
MOST_STALE_ADAPTERS: Final = 62
"""Steps that rows may lie behind where engines hold an adapter for each of them."""
OF_ADAPTERS: Final = ("lora_alpha", "lora_targets", "lora_dropout", "lora_rslora")
"""Settings that only a LoRA adapter reads."""


class TrainerSettings(CheckedSettings, BaseSettings):
    """Settings of `odradek train`."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = LEVELS
    model_config = from_environment("ODRADEK_TRAINER_")

    model: str = ""
    """Folder of the model to start from (safetensors and a tokenizer)."""
    output_dir: Path = Path("runs/policy")
    """Where checkpoints and weights go; a run that finds its own checkpoint there goes on."""
    run: str = LEADER
    """Name of this run in the ledger (`rl.steps.v1`)."""
    begin_anew: bool = False
    """Train a run from its start again where the ledger knows of its checkpoints, but none of them
    can be loaded; without it such a start is refused."""
    policy: str = Field(default="policy", validation_alias="ODRADEK_POLICY")
    """Name under which weights are announced on `rl.policies.v1`."""
    engine_urls: str = Field(default="", validation_alias="ODRADEK_ENGINE_URL")
    """Addresses of the engines to reload, comma separated; none: nobody is reloaded. A replay
    reloads none."""
    engine_timeout_s: float = Field(default=120.0, gt=0)
    """How long an engine may say nothing, loads included, before it counts as away; the trainer
    gives up once all of them do."""
    batches_topic: str = BATCHES.name
    """Topic of batches to train on: the default, `rl.mixed.v1` for fresh batches and old ones that
    `odradek sample` draws again, or any other name for a replay."""
    revision: Annotated[str, Field(pattern=r"^(first|latest|[0-9]{1,18})$")] = "first"
    """Which rewards count. `first`: those of the batches. `latest`: also all late rewards that are
    there when a batch is read. An offset on rl.revisions.v1: also the late rewards before it, so
    another run with the same number sees the same."""
    replay_of: str = ""
    """Run whose ledger lists the policy versions of a replay's episodes."""
    leads: bool = True
    """Whether agents sample from this run's weights. A run that does not lead reads the same
    batches beside the one that does: it loads no engine, its policy has a name of its own, and its
    steps give no credit."""
    sampled_by: str = ""
    """Run that leads, where this one does not; empty: `main`. Whoever names it need not say
    `leads = false`."""
    until_end: bool = False
    """Stop when the topic of batches is at its end, instead of waiting for more."""

    loss: LossName = "dapo"
    """Policy loss, or your own `module:function`; docs/learning.md has them, and what goes with
    what."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Learning rate of AdamW, at its highest."""
    schedule: Schedule = "constant"
    """What becomes of the learning rate after the warm-up: it stays, or falls to 0 at `max_steps`
    on a line or on half a cosine."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from 0 on a line."""
    optimizer: Optimizer = "adamw"
    """AdamW of torch, fused; or of bitsandbytes, with moments of 8 bits (`adamw_8bit`), moments
    that move to the host's memory where the card's is short (`adamw_paged`), or both
    (`adamw_8bit_paged`). The three of bitsandbytes were never run on a card."""
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    """Weight decay of AdamW, of matrices only: norms and biases have none."""
    adam_beta2: float = Field(default=0.999, ge=0.01, le=0.999999999)
    """Second beta of AdamW: how long it remembers squared gradients."""
    max_grad_norm: float = Field(default=1.0, ge=0, le=1e9)
    """Gradients longer than this are shortened to it; 0 for no bound."""
    epsilon_low: float = Field(default=0.2, ge=0, le=1)
    """How far below 1 a probability ratio counts."""
    epsilon_high: float = Field(default=0.28, ge=0, le=1e6)
    """How far above 1 a probability ratio counts."""
    dual_clip: float = Field(default=0.0, ge=0, le=1e6)
    """Highest probability ratio that counts where the advantage is negative; 0 for no bound, 3 is
    usual."""
    kl: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the KL term against the model that the run started from."""
    kl_form: KlForm = "k3"
    """Estimator of the KL term, and where it goes: `k1`, `k2` or `k3` into the loss, with
    `_weighted` importance-weighted, with `_reward` into the reward."""
    entropy: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the entropy bonus; 0 leaves it out."""
    top_entropy: float = Field(default=1.0, ge=0.001, le=1)
    """Share of a step's tokens, those with the most entropy, that the policy's term is of; below 1
    it costs a forward pass more."""
    tis: float = Field(default=0.0, ge=0, le=1e6)
    """Upper bound of importance weights, with which the clip is of the ratio to the weights of one
    step before; 0 leaves them out, 2 is usual."""
    tis_low: float = Field(default=0.0, ge=0, le=1)
    """Lower bound of importance weights."""
    correction: Correction = "token_truncate"
    """What becomes of importance weights beyond their bounds, truncated (TIS) or masked (MIS,
    IcePop), and whether they are of tokens or of whole sequences."""
    baseline: Baseline = "mean"
    """What a sample's reward is compared with, or your own `module:function`."""
    scale_advantages: Scale = "group"
    """By what advantages are divided: the standard deviation of the `group`, of the whole step
    (`batch`), or `none`."""
    pass_k: int = Field(default=PASS_K, ge=1, le=1024)
    """Samples of which one is to succeed, with `baseline = pass_at_k`."""
    overlong_tokens: int = Field(default=0, ge=0)
    """Sampled tokens from which on a sample's reward is lower by 1; 0 for no such bound."""
    overlong_buffer: int = Field(default=0, ge=0)
    """So many tokens before `overlong_tokens` a reward begins to fall."""
    length_penalty: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the length of a sample among those of its group; 0 leaves it out."""
    weigh: Weigh = "episode"
    """What weighs the same in the loss: each `episode`, however many sequences it fell into, or
    each `row`, as in TRL."""
    temperature: float = Field(default=1.0, ge=COLDEST, le=HOTTEST, allow_inf_nan=False)
    """Temperature of replies for which the log has none, such as those of older proxies. Where the
    log has one, each token is compared at its own."""
    truncated: Truncated = "train"
    """What becomes of replies that were cut by length: `train`; `mask`, their tokens are not
    trained on; `refuse`, nor is anything else in their sequence, and the ledger names it."""
    success_reward: float = 1.0
    """Reward from which on a sample counts as a success in the metrics."""

    lora_rank: int = Field(default=0, ge=0, le=512)
    """Rank of a LoRA adapter, which is trained in place of the model's weights; 0 trains these."""
    lora_alpha: int = Field(default=32, ge=1, le=65536)
    """An adapter's product is multiplied by this number over its rank."""
    lora_targets: str = ""
    """Linear layers that get an adapter, by the last words of their names, comma separated; empty:
    all but the head."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of an adapter's inputs in training."""
    lora_rslora: bool = False
    """Whether an adapter is multiplied by `lora_alpha` over the root of its rank (rsLoRA)."""

    rows_per_step: int = Field(default=64, ge=1)
    """Rows of each optimizer step."""
    micro_tokens: int = Field(default=16_384, ge=1)
    """Tokens of one forward pass at most, counted as they are computed: what rows share counts
    once. Where memory does not do, the trainer halves it, says so, and remembers it."""
    max_row_tokens: int = Field(default=0, ge=0)
    """Longer rows are refused; 0 for no bound."""
    max_staleness: int = Field(default=4, ge=0)
    """Optimizer steps that a row's oldest token may lie behind."""
    max_staleness_replayed: int = Field(default=64, ge=0)
    """The same for rows that were drawn again."""
    fresh_share: float = Field(default=0.25, ge=0, le=1)
    """Least share of each step's rows that are fresh: more rows that were drawn again are
    refused."""
    max_steps: int = Field(default=1000, ge=1)
    """Optimizer steps in all, over all starts of this run."""
    sync_every: int = Field(default=1, ge=1)
    """Steps between two transfers of weights to the engines."""
    transfer_dtype: TransferDtype = "auto"
    """What weights are rounded to on their way to the engines. `auto` is bfloat16, in which engines
    on a GPU compute, where the trainer is on one, and float32 on a CPU."""
    save_every: str = "1"
    """How often a checkpoint is begun: every so many steps (`20`), or at the first step's end after
    so much time (`90s`, `10m`, `2h`). Steps without one are trained again after a crash."""
    keep: int = Field(default=3, ge=1)
    """Checkpoints to keep."""

    level: Level = "balanced"
    """Decides `precision`, `gradient_checkpointing`, `micro_tokens` and `save_every` where they are
    not set themselves: `safe` (exact, least memory), `balanced` (the defaults) or `fast`."""
    seed: Seed = 0
    """Seed of everything random."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d{1,4})?)$")
    """Where to train: `auto`, `cpu`, `cuda`, or `cuda:1` for the second of several GPUs."""
    precision: Precision = "auto"
    """Of forward and backward passes: `float32`, or `bfloat16` (float32 weights under autocast).
    `auto` is bfloat16 on a GPU that has it."""
    tf32: bool = False
    """Whether a GPU may round float32 factors to the ten bits of TF32. Never run on a card."""
    compile_layers: bool = False
    """Whether torch compiles each layer, at its first pass. Never run on a card."""
    liger: bool = False
    """Whether norms and MLPs are computed by Liger's kernels (liger-kernel, on a GPU). Never run on
    a card."""
    gradient_checkpointing: int = Field(default=0, ge=0)
    """Activations of which layers are computed twice instead of kept: 1 (or `true`) all, n every
    nth, 0 none."""

    @field_validator("precision", mode="before")
    @classmethod
    def _no_halves(cls, value: Any) -> Any:
        if value in HALVES:
            raise ValueError(
                f"{value} ends at 65504, so gradients overflow or vanish without loss scaling: use "
                "bfloat16"
            )
        return value

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _all_or_none(cls, value: Any) -> Any:
        words = {"true": 1, "false": 0}
        return words.get(value.lower(), value) if isinstance(value, str) else value

    @field_validator("save_every", mode="before")
    @classmethod
    def _cadence(cls, value: Any) -> Any:
        """A number of steps needs no quotation marks."""
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str):
            Cadence.of(text)
        return text

    @field_validator("engine_urls")
    @classmethod
    def _roots(cls, value: str) -> str:
        return ",".join(roots(value))

    @field_validator("scale_advantages", mode="before")
    @classmethod
    def _scale(cls, value: object) -> object:
        """True and false are what it was before it had a third value."""
        return FORMER_SCALES.get(str(value).lower(), value)

    @model_validator(mode="after")
    def _consistent(self) -> "TrainerSettings":
        for line in contradictions(self):
            raise ValueError(line)
        return self

    @property
    def is_replay(self) -> bool:
        """Whether the batches are those of a run before."""
        return self.batches_topic not in {BATCHES.name, MIXED.name}

    @property
    def is_aside(self) -> bool:
        """Whether agents sample from another run's weights: in a replay, or beside a live run."""
        return self.is_replay or bool(self.leader)

    @property
    def leader(self) -> str:
        """The run whose weights agents sample from, beside which this one reads; empty: its own."""
        return self.sampled_by or ("" if self.leads else LEADER)

    @property
    def policy_name(self) -> str:
        """The name that this run's weights go by: only the live run moves the live policy."""
        return f"{self.policy}.{self.run}" if self.is_aside else self.policy

    @property
    def engines(self) -> tuple[str, ...]:
        """Addresses of the engines, without a slash or /v1 at the end."""
        return () if self.is_aside else roots(self.engine_urls)

    @property
    def rules(self) -> RowRules:
        """What decides which rows are used."""
        return RowRules.of({name: getattr(self, name) for name in type(self).model_fields})


def contradictions(settings: "TrainerSettings") -> Iterator[str]:
    """Each pair of settings that cannot work, in a line that names both and says why."""
    yield from _of_steps(settings)
    yield from _of_numbers(settings)
    yield from _of_adapters(settings)
    yield from of_learning(settings)
    yield from _of_places(settings)


def _of_steps(settings: "TrainerSettings") -> Iterator[str]:
    # Just before a transfer the engines' weights are sync_every - 1 steps old. Rows that are older
    # than max_staleness are refused, so no step would come that leads to the next transfer.
    oldest = min(settings.sync_every, settings.max_steps) - 1
    if oldest > settings.max_staleness and not settings.is_aside:
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
    if settings.learning_rate * settings.weight_decay >= 1:
        yield (
            f"weight_decay ({settings.weight_decay:g}) at learning_rate "
            f"({settings.learning_rate:g}) takes all of each weight away in a step: their product "
            "must be below 1"
        )


def _of_adapters(settings: "TrainerSettings") -> Iterator[str]:
    if settings.lora_rank and settings.engines and settings.max_staleness > MOST_STALE_ADAPTERS:
        yield (
            f"max_staleness ({settings.max_staleness}) with lora_rank ({settings.lora_rank}) asks "
            f"engines to hold {settings.max_staleness + 2} adapters at once: set max_staleness to "
            f"{MOST_STALE_ADAPTERS} or less"
        )


def _of_places(settings: "TrainerSettings") -> Iterator[str]:
    topic = settings.batches_topic
    if settings.replay_of and not settings.is_replay:
        yield (
            f"replay_of ({settings.replay_of}) is read for a replay only, and batches_topic is the "
            f"live {settings.batches_topic}: name the topic that `odradek replay --to` wrote"
        )
    if settings.replay_of and settings.replay_of == settings.run:
        yield (
            f"replay_of and run are both {settings.run!r}: the ledger could not tell the replay "
            "from what it repeats; name the run otherwise"
        )
    yield from _of_followers(settings)
    if settings.is_replay and holds_others(topic):
        yield (
            f"batches_topic ({topic}) holds no batches: name {BATCHES.name}, or the topic that "
            "`odradek replay --to` wrote"
        )
    if topic == MIXED.name and settings.tis == 0:
        yield (
            f"batches_topic ({topic}) has rows that older weights sampled, and tis (0) leaves them "
            "to the clip alone, which does not correct for that: set tis (2 is usual) and, if you "
            "like, correction"
        )
    for name in ("run", "policy_name"):
        length = len(getattr(settings, name).strip())
        if not 0 < length <= LONGEST_NAME:
            noun = "run" if name == "run" else "policy (beside another run, with run)"
            yield f"{noun} has {length} characters, and the log takes names of 1 to {LONGEST_NAME}"
    if settings.model and within(settings.model, str(settings.output_dir)):
        yield (
            f"model ({settings.model}) lies in output_dir ({settings.output_dir}), where old "
            "checkpoints are deleted and this run would go on from its own: copy the model "
            "elsewhere, or choose another output_dir"
        )


def _of_followers(settings: "TrainerSettings") -> Iterator[str]:
    leader, given = settings.leader, settings.model_fields_set
    name = "sampled_by" if settings.sampled_by else "leads = false: sampled_by"
    if settings.sampled_by and settings.leads and "leads" in given:
        yield (
            f"leads = true, and sampled_by ({leader}) names another run that leads: take one of "
            "them out"
        )
    if leader and leader == settings.run:
        yield (
            f"{name} and run are both {settings.run!r}: two trainers of one run would take "
            "each other's steps for their own; name this run otherwise"
        )
    if leader and settings.is_replay:
        yield (
            f"{name} ({leader}) is for a run beside the live one, and batches_topic "
            f"({settings.batches_topic}) is a replay: give replay_of, which says the same of a "
            "replay"
        )


def without_effect(settings: "TrainerSettings") -> Iterator[str]:
    """A line for each setting that was given, and that no other setting lets be read."""
    explicit = settings.model_fields_set
    unmixed = (settings.batches_topic == BATCHES.name, f"batches_topic = {BATCHES.name}")
    idle = {
        **idle_in_learning(settings),
        "max_staleness_replayed": unmixed,
        "fresh_share": unmixed,
        "engine_timeout_s": (not settings.engines, "no engine_urls"),
        **dict.fromkeys(OF_ADAPTERS, (settings.lora_rank == 0, "lora_rank = 0")),
    }
    for name, (unread, because) in idle.items():
        if unread and name in explicit:
            yield f"{name} has no effect with {because}"
    if not settings.engines and not settings.is_aside:
        yield (
            "no engine_urls: engines that do not follow the policy on the log by themselves keep "
            "their weights, and rows older than max_staleness are refused"
        )
