"""TRL's asynchronous GRPO trainer, fed from the log.

What is TRL's: loading, packing rows into a prefix tree, the fused head, gradient accumulation, the
optimizer loop. What is ours: where rows come from and which are used (`feed`, `consumption`), the
attention kernel (`attention`), the loss and its normalisation over the whole optimizer step
(`losses`), and the order in which a finished step becomes durable and known (`moves`).
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl.experimental.async_grpo import AsyncGRPOTrainer
from trl.trainer.utils import create_model_from_path

from odradek.infra.runtime import telemetry
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.process import say_ready
from odradek.schemas.events import Policy
from odradek.trainer.commit import checkpoint, optimizer_state
from odradek.trainer.commit.announcer import Announcer
from odradek.trainer.commit.protocol import (
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
from odradek.trainer.feed.rows import NON_FINITE
from odradek.trainer.models import load_tokenizer
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step import attention
from odradek.trainer.step.logprobs import Targets, TokenScores, add_head
from odradek.trainer.step.losses import LossInputs, StepTotals, options_of, policy_loss
from odradek.trainer.step.metrics import StepMetrics
from odradek.trainer.step.model_support import check_config, loading, prepare
from odradek.trainer.step.packing import packed, whole_of
from odradek.trainer.step.proximal import ProximalPolicy
from odradek.trainer.step.trl_config import config_of, on_cpu, without_cuda
from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.finite import non_finite, trained_tensors, why_not_step

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
        """Load the model. Raises NoModel, NoTokenizer or UnsuitedModel."""
        self.settings = settings
        self.parts = parts
        self.measured = StepMetrics(settings.loss)
        self._moves = CommitProtocol(settings, parts.standing, parts.lineage)
        self._took: dict[str, float] = {}
        self._whole = StepTotals(0, 0)
        self._saved_step = -1
        self._fault = ""
        """What of the step under way is no number."""
        # A resumed run's model is that of its checkpoint, whatever `model` says by now.
        begin = str(parts.standing.folder or settings.model)
        tokenizer = load_tokenizer(begin)
        check_config(begin, settings.max_row_tokens)
        with without_cuda(on_cpu(settings)), loading(begin):
            super().__init__(
                model=begin,
                args=config_of(settings),
                train_dataset=Dataset.from_dict({"prompt": ["from the log"]}),
                processing_class=tokenizer,
                rollout_worker=parts.feed,
                weight_transfer=parts.transfer,
            )
        add_head(self.model)
        prepare(self.model, begin, dtype=settings.dtype, longest=settings.max_row_tokens)
        self.model_accepts_loss_kwargs = True  # the loss is ours and already one step's share
        self._shape = options_of(settings)
        self._reference = self._frozen(settings.model) if settings.kl > 0 else None
        self._proximal = ProximalPolicy(self._frozen(begin)) if settings.tis > 0 else None
        parts.feed.on_idle = self.tell_idle
        parts.feed.consumption.vocabulary = self.model.get_input_embeddings().num_embeddings
        self.add_callback(_Steps(self))

    def _frozen(self, path: str) -> Any:
        """The model of a folder, to score rows with and never to train."""
        model = create_model_from_path(
            path,
            device_map=None,
            attn_implementation=attention.NAME,
            dtype=self.settings.dtype,
        )
        add_head(model)
        return model.to(self.args.device).requires_grad_(requires_grad=False).eval()

    def run(self) -> int:
        """Train to the end; returns the number of optimizer steps done in all starts."""
        folder = self.parts.standing.folder
        self.train(resume_from_checkpoint=str(folder) if folder else None)
        step = int(self.state.global_step)
        if self._saved_step != step and step > self._begun_at:
            drive(self._moves.end(step), self._do)
        return step

    # Rows in

    def get_train_dataloader(self) -> Any:
        """TRL's pipeline without reading a batch ahead, which would cost a step of staleness."""
        self._rollout_dataset, loader = packed(
            self.parts.feed,
            micro_rows=self.settings.micro_rows,
            pad_id=self.processing_class.pad_token_id,
            metrics=self._metrics["train"],
        )
        return loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[list[Any], int | None]:
        """All micro-batches of a step; none at all where rows end in the middle of one.

        A remainder is left alone on purpose: a run that had gone on would have filled it up.
        """
        if self.state.global_step >= self.settings.max_steps:
            return [], None  # resumed from the last checkpoint: the loop would make one step more
        began = time.perf_counter()
        micro_batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.measured.wait_s = time.perf_counter() - began
        if len(micro_batches) < num_batches:
            return [], None
        trained = int(sum(float(batch["global_n_tokens"][0]) for batch in micro_batches))
        self._whole = whole_of(micro_batches)
        self.measured.forwarded = int(
            sum(float(batch["global_n_forward_tokens"][0]) for batch in micro_batches)
        )
        self._step_began = time.perf_counter()
        return micro_batches, trained

    # The loss

    def _score(self, model: Any, inputs: dict[str, torch.Tensor]) -> TokenScores:
        """Score each sampled token at its own temperature."""
        real = inputs["attention_mask"].bool()
        tree = {
            key: inputs[key][inputs[key] >= 0]
            for key in ("tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k")
        }
        at = inputs["token_index"][inputs["token_index"] >= 0]
        labels = inputs["shift_labels"][real][at]
        scores: TokenScores = model(
            input_ids=inputs["input_ids"][real].unsqueeze(0),
            position_ids=inputs["position_ids"][real].unsqueeze(0),
            tree_mask=attention.mask_for(tree, inputs["input_ids"].device),
            targets=Targets(at, labels, inputs["temperatures"].flatten()),
        )
        return scores

    @torch.no_grad()
    def _judged_by(self, frozen: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Log probabilities of the sampled tokens under another policy, where there is one."""
        return None if frozen is None else self._score(frozen, inputs).logprobs

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's share of the step's loss: shares add up, they are not averaged."""
        del num_items_in_batch
        began = time.time()
        scores = self._score(model, inputs)
        self._last_forward_time_s = time.time() - began
        n = len(scores.logprobs)
        staleness, _, weights = inputs["row_facts"][0].unbind(-1)
        terms = LossInputs(
            logprobs=scores.logprobs,
            old_logprobs=inputs["old_log_probs"][:, :n].flatten(),
            advantages=inputs["advantages"][:, :n].flatten(),
            row=inputs["segment_id"][:, :n].flatten(),
            n_rows=int((staleness >= 0).sum()),
            reference=self._judged_by(self._reference, inputs),
            weights=weights,
            proximal=self._judged_by(self._proximal and self._proximal.model, inputs),
        )
        loss = policy_loss(self.settings.loss, terms, self._whole, self._shape)
        self.measured.add(terms, loss, scores.entropy, inputs["row_facts"], self._shape)
        return (loss, scores) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The last thing before the optimizer: without gradients, its step is none."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.measured.grad_norm = float(norm) if norm is not None else 0.0
        self._fault = why_not_step(
            self._inner_optimizer, self.measured.loss, self.measured.grad_norm
        )
        if self._proximal is not None and not self._fault:
            self._proximal.follow(self.accelerator.unwrap_model(self.model))
        if self._fault:
            self._inner_optimizer.zero_grad(set_to_none=True)
        # What accelerate says of a step whose gradients overflowed: the scheduler stands still.
        self.optimizer._is_overflow = bool(self._fault)  # noqa: SLF001 - it has no other way
        return norm

    def _log_step_metrics(self) -> None:
        """TRL's own accounting is not read by anybody: only reset what it sums up."""
        self._metrics["train"].clear()
        self._trained_groups.clear()
        self._current_train_step_time = 0.0
        self._rollout_dataset.wait_s = 0.0

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
            passed = feed.consumption.finish_step(skipped=bool(fault))
            # What is fed from here on is behind this step: its checkpoint must not stand beyond
            # refusals that its entry does not tell.
            position = feed.consumption.position
        feed.busy()
        self.measured.train_s = time.perf_counter() - self._step_began
        metrics = self.measured.finish(passed, self.settings.success_reward)
        with telemetry.span(
            "trainer.step",
            run=self.settings.run,
            step=step,
            topic=self.settings.batches_topic,
            batches=[use.offset for use in passed.used],
        ):
            self._took = metrics
            stopping = feed.stopping.is_set()
            if fault:
                self._say_skipped(step, passed, fault)
            doing = self._moves.finish(
                step, passed, position, metrics, skipped=bool(fault), stopping=stopping
            )
            drive(doing, self._do)
        feed.announced(passed.position)
        if not fault:
            log.info(
                "step %d: version %d, success %.3f, loss %.4f, staleness %.1f, batch %d",
                *(step, self.version, metrics.get("success", 0.0), metrics["loss"]),
                *(metrics["staleness_mean"], passed.position),
            )

    def _say_skipped(self, step: int, passed: ConsumedRows, fault: str) -> None:
        rows = [refusal.offset for refusal in passed.refused if refusal.reason == NON_FINITE]
        log.warning(
            "step %d is skipped, nothing is moved: its %s would be no number; %d rows of batches "
            "%d to %d are refused",
            *(step, fault, len(rows), min(rows), max(rows)),
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
        began = time.perf_counter()
        if isinstance(move, SaveCheckpoint):
            saved = self._checkpoint(move)
            self._took["checkpoint_s"] = time.perf_counter() - began
            return saved
        if isinstance(move, WaitForEngine):
            return parts.transfer.reach()
        if isinstance(move, LoadWeights):
            transfer = parts.transfer
            transfer.version = move.version
            super()._sync_weight()
            self._took["sync_s"] = time.perf_counter() - began
            return Loaded(transfer.folder.as_uri(), transfer.digest, transfer.served)
        if isinstance(move.event, Policy):
            return parts.announcer.policy(move.event)
        return parts.announcer.step(move.event)

    def tell_idle(self, passed: ConsumedRows) -> None:
        """Tell the ledger about batches that were passed without an optimizer step."""
        self.parts.announcer.step(self._moves.entry(int(self.state.global_step), passed))

    def _sync_weight(self) -> None:
        """What TRL calls once, before the first rollout."""
        step = self._begun_at = self._saved_step = int(self.state.global_step)
        self._check_weights(
            f"{self.parts.standing.folder or self.settings.model} is a model of which"
        )
        drive(self._moves.begin(step), self._do)
        say_ready(f"trainer (step {step}, version {self.version})")

    def _checkpoint(self, save: SaveCheckpoint) -> str:
        digest = checkpoint.write(
            self.settings.output_dir,
            save.step,
            self._fill,
            keep=self.settings.keep,
            position=save.position,
            at=self.parts.at,
        )
        self._saved_step = save.step
        return digest

    def _fill(self, folder: Path) -> None:
        """Everything that a resumed run needs, none of it pickled."""
        model = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(folder, state_dict=self.accelerator.get_state_dict(self.model))
        self.parts.at("between_files")
        self.processing_class.save_pretrained(folder)
        self.parts.at("between_files")
        optimizer_state.save(self._inner_optimizer, self.lr_scheduler, folder)
        if self._proximal is not None:
            self._proximal.save(folder)
        self.state.save_to_json(str(folder / "trainer_state.json"))

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

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: a step of ours draws no random numbers."""
