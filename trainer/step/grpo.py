"""TRL's asynchronous GRPO trainer, fed from the log.

What is TRL's: loading, the fused head, the optimizer loop. What is ours: where rows come from and
which are used (`feed`), which of them share a forward pass (`plan`, `gradient`), the attention
kernel (`attention`), the loss and its normalisation over the whole optimizer step (`losses`), and
the order in which a finished step becomes durable and known (`commit.protocol`). One batch of the
loader is one optimizer step.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from transformers import TrainerCallback
from trl.experimental.async_grpo import AsyncGRPOTrainer

from odradek.infra.runtime import telemetry
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.process import say_ready
from odradek.schemas.events import Policy
from odradek.trainer.adapters.base import begun_from
from odradek.trainer.adapters.lora import LoraAdapter
from odradek.trainer.commit import optimizer_state
from odradek.trainer.commit.announcer import Announcer
from odradek.trainer.commit.protocol import (
    AwaitCheckpoint,
    CommitProtocol,
    CrashPoint,
    Loaded,
    LoadWeights,
    Move,
    SaveCheckpoint,
    WaitForEngine,
    drive,
)
from odradek.trainer.commit.resume import ResumePoint
from odradek.trainer.errors import NonFiniteWeights
from odradek.trainer.feed.cursor import ConsumedRows
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.feed.rows import NO_MEMORY, Row
from odradek.trainer.losses.preparation import RowSurvey
from odradek.trainer.measure.meter import StepMeter
from odradek.trainer.models import load_tokenizer
from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.saving.model_files import plain_files, weights_of
from odradek.trainer.saving.run_checkpoints import RunCheckpoints, RunState, whole_state
from odradek.trainer.saving.start_folder import check_loaded
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step import gradient
from odradek.trainer.step.logprobs import TokenScores, add_head
from odradek.trainer.step.losses import StepTotals
from odradek.trainer.step.metrics import StepMetrics
from odradek.trainer.step.model_support import check_config, loading, prepare, say_memory
from odradek.trainer.step.packing import PackedRows, loader_of, tensors_of
from odradek.trainer.step.precision import MIXED, autocast, described, resolved, use_tf32
from odradek.trainer.step.proximal import frozen_policies
from odradek.trainer.step.scores import StepScores
from odradek.trainer.step.trl_config import config_of, on_cpu, without_cuda
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.finite import non_finite, trained_tensors, why_not_step
from odradek.trainer.weights.moved import MovedShare

log = logging.getLogger("odradek")


@dataclass(frozen=True)
class TrainerParts:
    """What the trainer works with: all that is not torch."""

    feed: LogRolloutWorker
    transfer: DirectoryTransfer
    announcer: Announcer
    lineage: Lineage
    standing: ResumePoint = field(default_factory=ResumePoint)
    at: Callable[[str], None] = crash_point
    """Called at each crash point."""


class _Steps(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    def __init__(self, trainer: "LogTrainer") -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args
        self._trainer.finish_step(state.global_step)
        if self._trainer.parts.feed.stopping.is_set():
            control.should_training_stop = True


class LogTrainer(AsyncGRPOTrainer):  # type: ignore[misc] # TRL is untyped
    """Trains on rows from the log until `max_steps`, the end of a replay, or `stop()`."""

    def __init__(self, settings: TrainerSettings, parts: TrainerParts) -> None:
        """Load the model. Raises NoModel, NoTokenizer, UnsuitedModel or BadSettings."""
        self.settings = settings
        self.parts = parts
        self.measured = StepMetrics(settings.loss)
        self._moves = CommitProtocol(settings, parts.standing, parts.lineage)
        self._took: dict[str, float] = {}
        self._checkpoints = RunCheckpoints(
            settings.output_dir,
            settings.keep,
            lambda scratch: {} if self._adapter else plain_files(self.model, tokenizer, scratch),
            parts.at,
        )
        self._fault = ""
        """What of the step under way is no number."""
        # A resumed run's model is that of its checkpoint, whatever `model` says by now.
        begin = begun_from(settings, parts.standing.folder)
        check_config(begin, verified=begin == str(parts.standing.folder))
        tokenizer = load_tokenizer(begin)
        with without_cuda(on_cpu(settings)), loading(begin):
            super().__init__(
                model=begin,
                args=config_of(settings),
                train_dataset=Dataset.from_dict({"prompt": ["from the log"]}),
                processing_class=tokenizer,
                rollout_worker=parts.feed,
                weight_transfer=parts.transfer,
            )
        self._precision = resolved(settings.precision, self.args.device)
        use_tf32(allowed=settings.tf32)
        log.info("precision: %s", described(self._precision, self.args.device, tf32=settings.tf32))
        check_loaded(self.model, begin)
        self.meter = StepMeter(self.model, settings.output_dir, self._precision, tf32=settings.tf32)
        self._adapter = LoraAdapter.of(self.model, settings, parts.standing.folder)
        add_head(self.model, entropy_gradient=settings.entropy > 0)
        prepare(self.model, begin, settings)
        if self._adapter is not None:
            self._adapter.begin(halved=self._precision == MIXED)
        say_memory(self.model, settings, self._precision)
        self.model_accepts_loss_kwargs = True  # the loss is ours and already one step's share
        self._reference, self._proximal = frozen_policies(
            settings, begin, self.model, self._adapter
        )
        self._scores = StepScores(
            settings, self.model, self._score, self._reference, self._proximal
        )
        self._gradient = gradient.StepGradient(
            TokenBudget.of(settings.micro_tokens, gradient.kept(settings.output_dir)),
            self._backward,
            self._forget_gradient,
            lambda budget: gradient.keep(settings.output_dir, budget),
            self._scores.preparation,
            self._survey,
        )
        self._unfit: frozenset[tuple[int, int]] = frozenset()
        """Rows of the step under way that no memory is large enough for."""
        parts.feed.on_idle = self.tell_idle
        parts.feed.on_wait = self._look
        parts.feed.consumption.vocabulary = self.model.get_input_embeddings().num_embeddings
        self.add_callback(_Steps(self))

    def run(self) -> int:
        """Train to the end; returns the number of optimizer steps done in all starts."""
        folder = self.parts.standing.folder
        with closing(self._checkpoints):
            self.train(resume_from_checkpoint=str(folder) if folder else None)
            step = int(self.state.global_step)
            drive(self._moves.end(step), self._do)
        return step

    # Rows in

    def get_train_dataloader(self) -> Any:
        """Our own loader, whose batches are steps: TRL's packs micro-batches as rows come."""
        return loader_of(self.parts.feed, self.settings.rows_per_step)

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[Row]], num_batches: int, device: Any
    ) -> tuple[list[list[Row]], None]:
        """The rows of the next step; none at all where rows end in the middle of one.

        A remainder is left alone on purpose: a run that had gone on would have filled it up.
        """
        del num_batches, device
        if self.state.global_step >= self.settings.max_steps:
            return [], None  # resumed from the last checkpoint: the loop would make one step more
        with self.meter.part("wait"):
            rows = next(epoch_iterator, None)
        return [] if rows is None else [rows], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: transformers counts them for padded batches."""
        del inputs
        return 0

    # The gradient

    def training_step(
        self, model: Any, inputs: list[Row], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Leave the gradient of a whole step in the model; returns its loss."""
        del num_items_in_batch
        self.meter.begin()
        model.train()
        self._draw()
        with self.meter.part("plan"):
            unfit = self._gradient.compute(inputs)
        self._unfit = frozenset((row.offset, row.index) for row in unfit)
        return torch.tensor(self.measured.loss, dtype=torch.float64, device=self.args.device)

    def _draw(self) -> None:
        """What a step draws follows from its number: a checkpoint needs no state of generators.

        Dropout of adapters draws, and so may a person's own loss.
        """
        torch.manual_seed(self.settings.seed + int(self.state.global_step))

    def _backward(self, rows: Sequence[Row], totals: StepTotals) -> None:
        """Add the share of a micro-batch to the gradient."""
        packed = tensors_of(rows, self.args.device)
        options = self._scores.options
        self.meter.add(packed.positions, len(packed.row))
        with self.meter.part("forward"):
            loss, terms, scores = self._scores.share(packed, totals)
            self.accelerator.backward(loss)
            self.measured.add(terms, loss.detach(), scores.entropy, packed.facts, options)

    def _survey(self, rows: Sequence[Row]) -> list[RowSurvey]:
        """What advantages and entropy masks need of a micro-batch before the step's gradient."""
        packed = tensors_of(rows, self.args.device)
        with self.meter.part("forward"):
            return self._scores.survey(packed)

    def _forget_gradient(self) -> None:
        """Begin the step's gradient anew, with the memory that it took."""
        self.model.zero_grad(set_to_none=True)
        self._draw()
        self.measured.forget()
        self.meter.forget()
        clear_device_cache(garbage_collection=True)

    def _score(self, model: Any, packed: PackedRows) -> TokenScores:
        """Score each sampled token at its own temperature."""
        with autocast(self._precision, self.args.device):
            scores: TokenScores = model(
                input_ids=packed.ids[None],
                position_ids=packed.positions[None],
                tree_mask=packed.mask,
                targets=packed.targets,
            )
        return scores

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The last thing before the optimizer: without gradients, its step is none."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.measured.grad_norm = float(norm) if norm is not None else 0.0
        self.measured.grad_clipped = 0 < self.settings.max_grad_norm < self.measured.grad_norm
        (*_, group) = self._inner_optimizer.param_groups
        self.measured.learning_rate = float(group["lr"])
        self._moved = MovedShare(p for p in self.model.parameters() if p.requires_grad)
        self._fault = (
            NO_MEMORY
            if not self._gradient.batches
            else why_not_step(self._inner_optimizer, self.measured.loss, self.measured.grad_norm)
        )
        if self._proximal is not None and not self._fault:
            self._proximal.follow(self._adapter or self.accelerator.unwrap_model(self.model))
        if self._fault:
            self._inner_optimizer.zero_grad(set_to_none=True)
        # What accelerate says of a step whose gradients overflowed: the scheduler stands still.
        self.optimizer._is_overflow = bool(self._fault)  # noqa: SLF001 - it has no other way
        return norm

    def _log_step_metrics(self) -> None:
        """TRL's own accounting is not read by anybody: only reset what it sums up."""
        self._metrics["train"].clear()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Do nothing: a step's metrics are in the ledger."""

    # Steps out

    @property
    def version(self) -> int:
        """The policy version in force."""
        return self._moves.version

    def finish_step(self, step: int) -> None:
        """Make a finished optimizer step durable, then known; `moves` says in which order."""
        feed, fault = self.parts.feed, self._fault
        self._check_weights(f"step {step} made weights of which")
        with feed.lock:
            passed = feed.consumption.finish_step(skipped=bool(fault), unfit=self._unfit)
            # What is fed from here on is behind this step: its checkpoint must not stand beyond
            # refusals that its entry does not tell.
            position = feed.consumption.position
        feed.busy()
        metrics = self.measured.finish(passed, self.settings.success_reward)
        metrics |= self.meter.finish(step) | {"moved": self._moved.share()}
        self._look()
        with telemetry.span(
            "trainer.step",
            run=self.settings.run,
            step=step,
            topic=self.settings.batches_topic,
            batches=[use.offset for use in passed.used],
        ):
            metrics |= self._took
            self._took = metrics
            stopping = feed.stopping.is_set()
            if fault:
                gradient.say_skipped(step, passed, fault)
            doing = self._moves.finish(
                step, passed, position, metrics, skipped=bool(fault), stopping=stopping,
                now=time.monotonic(),
            )  # fmt: skip
            drive(doing, self._do)
        self._took = {}
        feed.announced(passed.position)
        if not fault:
            log.info(
                "step %d: version %d, success %.3f, loss %.4f, staleness %.1f, batch %d",
                *(step, self.version, metrics.get("success", 0.0), metrics["loss"]),
                *(metrics["staleness_mean"], passed.position),
            )

    def _check_weights(self, subject: str) -> None:
        """Raise NonFiniteWeights: these weights have not been saved, sent or announced."""
        model = self.accelerator.unwrap_model(self.model)
        if name := non_finite(trained_tensors(model, self._inner_optimizer)):
            raise NonFiniteWeights(f"{subject} {name!r} holds something infinite or no number")

    def _do(self, move: Move) -> Any:
        """Make one move of `moves`; `tests/trainer/test_kills.py` dies between any two."""
        parts = self.parts
        if isinstance(move, CrashPoint):
            return parts.at(move.point)
        if isinstance(move, SaveCheckpoint | AwaitCheckpoint):
            return self._checkpoints.make(move, self._state, self._took)
        if isinstance(move, WaitForEngine):
            return parts.transfer.reach()
        if isinstance(move, LoadWeights):
            transfer = parts.transfer
            transfer.version = move.version
            with self.meter.timed("sync_s", self._took):
                super()._sync_weight()
            uri = transfer.folder.as_uri()
            return Loaded(uri, transfer.digest, transfer.served, transfer.form)
        if isinstance(move.event, Policy):
            return parts.announcer.policy(move.event)
        return parts.announcer.step(move.event)

    def _look(self) -> None:
        """Tell the ledger of a checkpoint that has become durable; raise what ended its writing."""
        drive(self._moves.look(), self._do)

    def tell_idle(self, passed: ConsumedRows) -> None:
        """Tell the ledger about batches that were passed without an optimizer step."""
        self.parts.announcer.step(self._moves.entry(int(self.state.global_step), passed))

    def _sync_weight(self) -> None:
        """What TRL calls once, before the first rollout."""
        step = int(self.state.global_step)
        self._check_weights(
            f"{self.parts.standing.folder or self.settings.model} is a model of which"
        )
        drive(self._moves.begin(step, time.monotonic()), self._do)
        self._took = {}
        say_ready(f"trainer (step {step}, version {self.version})")

    def _state(self) -> RunState:
        """What a checkpoint holds: between two steps nothing of it changes."""
        weights = weights_of(self.model) if self._adapter is None else self._adapter.state()
        proximal = {} if self._proximal is None else self._proximal.tensors()
        return whole_state(weights, proximal, self._inner_optimizer, self.lr_scheduler, self.state)

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        inner: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # type: ignore[assignment] # accelerate's wrapper, or itself
        return inner

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self._proximal is not None:
            self._proximal.load(Path(checkpoint))
        for line in optimizer_state.load(
            self._inner_optimizer, self.lr_scheduler, Path(checkpoint)
        ):
            log.info("%s", line)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: the weights, or the adapter, were those of the checkpoint from the beginning."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: see `_draw`."""
