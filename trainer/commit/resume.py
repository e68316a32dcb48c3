"""Where a run stands when its trainer starts: read from its folder, the ledger and the policies."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from odradek.infra.bus import BusSettings
from odradek.schemas.events import Policy, Step
from odradek.schemas.topics import POLICIES, STEPS
from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.cursor import Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.readers.batch_reader import read_all
from odradek.trainer.settings import TrainerSettings

log = logging.getLogger("odradek")


@dataclass
class ResumePoint:
    """Where a run continues: its position, and the numbers that are taken.

    Attributes:
        incarnation: Counts the starts of this run, from 1.
        version: The last version anybody published under the policy's name.
        folder: The checkpoint to go on from, None for a new run.
        position: Of the first row to use.
        skipped: How many steps before it were skipped in a row.
        resumed_from: sha256 of that checkpoint's manifest.
        swallowed: The ledger entry of that checkpoint's step, where a crash came between writing
            the checkpoint and telling the log.
    """

    incarnation: int = 1
    version: int = 0
    folder: Path | None = None
    position: Position = field(default_factory=Position)
    skipped: int = 0
    resumed_from: str = ""
    swallowed: Step | None = None


async def read_log(bus: BusSettings) -> tuple[list[Step], list[Policy]]:
    """The whole ledger and all policies that compaction has left."""
    return await read_all(bus, STEPS.name, Step), await read_all(bus, POLICIES.name, Policy)


def lineage_of(settings: TrainerSettings, ledger: Sequence[Step], point: ResumePoint) -> Lineage:
    """The steps of versions, in this run or in the one it replays."""
    run = settings.leader or (settings.replay_of if settings.is_replay else settings.run)
    lineage = Lineage.from_ledger([step for step in ledger if step.run == run])
    if settings.is_aside:
        if settings.replay_of and not lineage.steps:
            raise BadSettings(f"the ledger knows no run {settings.replay_of!r} to replay")
        lineage.fixed = True
    elif point.folder is not None:
        stored: dict[str, int] = checkpoint.position_of(point.folder).get("versions", {})
        lineage.steps = {int(v): step for v, step in stored.items()} | lineage.steps
    if not lineage.fixed:
        lineage.cut_off(point.position.step)
    return lineage


def stand(
    settings: TrainerSettings, ledger: Sequence[Step], policies: Sequence[Policy]
) -> ResumePoint:
    """Find out where a run stands.

    Raises BadSettings for a folder of another run, and where the ledger knows of checkpoints of
    this one but none can be loaded.
    """
    own = [step for step in ledger if step.run == settings.run]
    incarnation = max((step.incarnation for step in own), default=0) + 1
    # The ledger knows versions that compaction took from the policies, and those that were taken
    # and perhaps reached an engine, but were never announced.
    versions = [policy.version for policy in policies if policy.name == settings.policy_name]
    versions += [step.version for step in ledger if step.policy == settings.policy_name]
    versions += [step.version for step in own]
    folder = checkpoint.newest(settings.output_dir, warn=log.warning)
    point = ResumePoint(incarnation, max(versions, default=0), folder)
    if folder is None:
        _refuse_lost(settings, own)
        return point
    # The trainer that wrote it may have died between the rename and its fsync. A power cut must not
    # take away a checkpoint on which the next entries of the log rest.
    durable_files.fsync(settings.output_dir)
    stored = checkpoint.position_of(folder)
    if (stored["run"], stored["topic"]) != (settings.run, settings.batches_topic):
        raise BadSettings(
            f"{settings.output_dir} holds run {stored['run']!r} on {stored['topic']}: choose "
            "another output_dir, or that run's name"
        )
    begun = stored.get("model", settings.model)
    if begun != settings.model and not settings.lora_rank:  # an adapter needs its own base
        log.warning(
            "run %s goes on with the weights of its checkpoint: it began with %s, and model = %s "
            "counts for the KL term only",
            *(settings.run, begun, settings.model),
        )
    point.version = max(point.version, int(stored["version"]))
    point.position = Position(
        stored["offset"], stored["row"], stored["step"], stored.get("source", 0)
    )
    point.skipped = stored.get("skipped", 0)  # an older checkpoint has none
    point.resumed_from = durable_files.sha256_of(folder / checkpoint.MANIFEST)
    point.swallowed = _swallowed(own, point.resumed_from, stored)
    return point


def _refuse_lost(settings: TrainerSettings, own: Sequence[Step]) -> None:
    """Raise BadSettings rather than train a run from its start that was further once."""
    saved = [step.step for step in own if step.checkpoint]
    if not saved or settings.begin_anew:
        return
    raise BadSettings(
        f"run {settings.run!r} has a checkpoint of step {max(saved)} in {STEPS.name}, but none in "
        f"{settings.output_dir} can be loaded: restore that folder, name another run (--run), or "
        "give --begin-anew to train this one from its start again"
    )


def _swallowed(own: Sequence[Step], digest: str, stored: dict[str, Any]) -> Step | None:
    """What the ledger does not have of a checkpoint: its step's entry, or only that it is durable.

    A checkpoint is written while the run goes on, so the same start may have told of its step, and
    of later ones, before it died.
    """
    entry: Step = msgspec.convert(stored["entry"], Step)
    if any(step.checkpoint == digest for step in own):
        return None
    entry = msgspec.structs.replace(entry, checkpoint=digest)
    if any(
        (step.optimized or step.skipped)
        and (step.incarnation, step.step) == (entry.incarnation, entry.step)
        for step in own
    ):
        return msgspec.structs.replace(entry, optimized=False, skipped=False, used=(), refused=())
    return entry
