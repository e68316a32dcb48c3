"""`odradek train`: the trainer as a process."""

import logging
import os
from collections.abc import Iterable
from contextlib import closing
from importlib.util import find_spec
from typing import Final

import torch

from odradek.infra.archive import ArchiveSettings, archive_of
from odradek.infra.bus import BusSettings, require_current
from odradek.infra.runtime import process
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas.events import Step
from odradek.schemas.topics import EPISODES, STEPS
from odradek.trainer.adapters.lora import require_peft
from odradek.trainer.adapters.transfer import engines_of, transfer_of
from odradek.trainer.commit.announcer_kafka import KafkaAnnouncer
from odradek.trainer.commit.ledger import LedgerTail, first_of
from odradek.trainer.commit.lock import claimed
from odradek.trainer.commit.resume import ResumePoint, lineage_of, read_log, stand
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.cursor import Cursor, Position, describe
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.readers.batch_reader import LogGroups
from odradek.trainer.feed.rollout_worker import LogRolloutWorker
from odradek.trainer.learning import require_own
from odradek.trainer.models import template_line
from odradek.trainer.placement import (
    VISIBLE,
    refuse_launchers,
    require_liger,
    require_optimizer,
    visible,
)
from odradek.trainer.settings import TrainerSettings, without_effect
from odradek.trainer.step.grpo import LogTrainer, TrainerParts
from odradek.trainer.step.precision import sent
from odradek.trainer.step.trl_config import on_cpu

log = logging.getLogger("odradek")
THREADS: Final = 1
"""Threads of torch on the CPU, which other processes share."""


def run(settings: TrainerSettings, bus: BusSettings) -> int:
    """Train until `max_steps`, the end of a replay, or SIGTERM; returns the steps done in all.

    Raises:
        TrainerError: In one line what to do; see `errors`.
        InfraError: Kafka cannot be used.
    """
    if not settings.model:
        raise BadSettings("no model is named: give --model FOLDER or ODRADEK_TRAINER_MODEL")
    refuse_launchers(os.environ)
    chosen = visible(settings.device, torch.cuda.device_count(), os.environ)
    if chosen is not None:  # before anything asks for a GPU: after that it counts for nothing
        os.environ[VISIBLE] = chosen
    kind = "cpu" if on_cpu(settings) else "cuda"
    require_optimizer(settings.optimizer, kind, installed=find_spec("bitsandbytes") is not None)
    require_liger(kind, asked=settings.liger, installed=find_spec("liger_kernel") is not None)
    require_peft(settings)
    require_own(settings)
    for line in without_effect(settings):
        log.warning("%s", line)
    with process.observed("trainer"):
        quiet()
        if not os.environ.get("OMP_NUM_THREADS"):  # torch takes that by itself
            torch.set_num_threads(THREADS)
        with closing(LoopThread()) as thread, claimed(settings.output_dir):
            return _run(settings, bus, thread)


def quiet() -> None:
    """Leave the talking to us."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.WARNING)


def _run(settings: TrainerSettings, bus: BusSettings, thread: LoopThread) -> int:
    thread.call(require_current(bus, (STEPS.name, settings.batches_topic, EPISODES.name)))
    ledger, policies = thread.call(read_log(bus))
    standing = stand(settings, ledger, policies)
    lineage = lineage_of(settings, ledger, standing)
    if settings.leader:
        tail = LedgerTail(thread, bus, run=settings.leader)
        if not lineage.steps:
            lineage.hear(first_of(tail))
        lineage.more = tail.more
    log.info("run %s goes on at %s", settings.run, describe(standing.position))
    source = LogGroups(
        thread,
        bus,
        settings.batches_topic,
        ends=settings.until_end,
        revision=settings.revision,
        pinned=_used_in_part(settings, ledger, standing.position),
        archive=archive_of(ArchiveSettings()),
    )
    source.open(standing.position.offset)
    try:
        announcer = KafkaAnnouncer(thread, bus)
        try:
            return _train(settings, standing, lineage, source, announcer)
        finally:
            announcer.close()
    finally:
        source.close()


def _used_in_part(
    settings: TrainerSettings, ledger: Iterable[Step], position: Position
) -> dict[int, int]:
    """The revision with which the batch at the position was used, where rows of it were."""
    if not position.row:
        return {}
    uses = [
        use
        for step in ledger
        if step.run == settings.run and step.step <= position.step
        for use in step.used
        if use.offset == position.offset
    ]
    return {position.offset: uses[-1].revision} if uses else {}


def _train(
    settings: TrainerSettings,
    standing: ResumePoint,
    lineage: Lineage,
    source: LogGroups,
    announcer: KafkaAnnouncer,
) -> int:
    feed = LogRolloutWorker(
        source,
        Cursor(settings.rules, lineage, standing.position),
        ahead=settings.rows_per_step,
    )
    dtype = sent(settings.transfer_dtype, cpu=on_cpu(settings))
    transfer = transfer_of(settings, engines_of(settings, log.warning), standing.folder, dtype)
    trainer = LogTrainer(settings, TrainerParts(feed, transfer, announcer, lineage, standing))
    if standing.folder is None:  # a run that continues has its template already
        log.info("%s", template_line(trainer.processing_class))
    process.on_signals(feed.stopping.set)
    steps = trainer.run()
    log.info("trained %d steps; last version %d", steps, trainer.version)
    return steps
