"""The trainer without its model: the product's position, lineage, standing, moves and checkpoints.

Weights are a chain of hashes over the rows of each step, so equal weights mean equal training.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from odradek.infra.bus import BusSettings, KafkaAppender
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec
from odradek.schemas.events import LORA, Policy, Step
from odradek.schemas.topics import POLICIES, STEPS
from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.protocol import (
    Announce,
    AwaitCheckpoint,
    CommitProtocol,
    CrashPoint,
    Doing,
    Loaded,
    LoadWeights,
    Move,
    SaveCheckpoint,
    Saved,
    WaitForEngine,
)
from odradek.trainer.commit.resume import lineage_of, read_log, stand
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.readers.batch_reader import LogGroups
from odradek.trainer.feed.rows import Row
from odradek.trainer.plan.budget import TokenBudget
from odradek.trainer.plan.micro_batches import MicroBatch, plan
from odradek.trainer.plan.retries import FittedRows, fit_rows
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.weights.fleet import Fleet
from tests.simulation.engines import FIRST, TIMEOUT_S, Engines

WEIGHTS = "weights"
IDLE_S = 1.0
PAUSES_S = (0.0, 0.0, 0.02, 0.5, 2.0)
"""How long a disk may take from one crash point of a checkpoint to the next."""


def after(weights: str, rows: list[Row]) -> str:
    """The weights after a step on these rows."""
    told = ";".join(
        f"{row.episode_id}/{row.index}/{row.advantage:.6f}"
        + (f"/{row.importance:.6f}" if row.replayed else "")
        for row in rows
    )
    return hashlib.sha256(f"{weights}|{told}".encode()).hexdigest()


def skipped(step: int, weights: str, rows: list[Row]) -> bool:
    """Whether a step comes to no number: one in four does, and never more than two in a row."""
    return step % 3 != 1 and int(after(weights, rows)[:4], 16) % 4 == 0


def too_large(step: int, row: Row) -> bool:
    """Whether a row of a step fits into no memory: one in five, where `skipped` may say so, too."""
    name = f"{row.episode_id}/{row.index}"
    return step % 3 != 1 and hashlib.sha256(name.encode()).digest()[0] % 5 == 0


def fitted(step: int, rows: list[Row]) -> FittedRows[Row]:
    """The product's way through a step in a memory of twice its longest row."""
    room = 2 * max(len(row.ids) for row in rows)

    def attempt(trying: Sequence[Row], budget: TokenBudget) -> MicroBatch | None:
        ids, groups = [row.ids for row in trying], [row.offset for row in trying]
        for batch in plan(ids, groups, budget=budget.learned).ranks[0]:
            if batch.tokens > room or any(too_large(step, trying[at]) for at in batch.rows):
                return batch  # out of memory
        return None

    return fit_rows(rows, TokenBudget.of(8 * room), attempt, forget=lambda: None)


class Trainer:
    """One start of the trainer: makes the product's moves on the simulated disk, engines and log.

    Args:
        bus: Where Kafka is.
        settings: The product's; `output_dir` is on the simulated disk.
        engines: Get the weights, where it leads.
        at: Called at each crash point.
        leader: Where it does not, the entries of the run that does.
    """

    def __init__(
        self,
        bus: BusSettings,
        settings: TrainerSettings,
        engines: Engines,
        at: Any,
        leader: Callable[[], list[Step]] | None = None,
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.engines = engines
        self.at = at
        self.weights = FIRST
        self.fleet = Fleet(
            [engines.client(engine, settings, at) for engine in engines.all if leader is None],
            timeout_s=TIMEOUT_S,
            tell=lambda _: None,
        )
        self.leader = leader
        self.rows: list[Row] = []
        self.told = -1
        self.writing: asyncio.Task[Saved] | None = None
        """The checkpoint that is being written."""

    async def run(self) -> None:
        """Train for ever."""
        ledger, policies = await read_log(self.bus)
        standing = stand(self.settings, ledger, policies)
        lineage = lineage_of(self.settings, ledger, standing)
        if self.leader is not None:
            while not (entries := self.leader()):
                await asyncio.sleep(0.5)
            lineage.hear(entries)
            lineage.more = self.leader
        self.step = standing.position.step
        if standing.folder is not None:
            self.weights = (standing.folder / WEIGHTS).read_text()
        self.moves = CommitProtocol(self.settings, standing, lineage)
        self.consumption = Cursor(self.settings.rules, lineage, standing.position)
        self.appender = await KafkaAppender.connect(self.bus)
        source = LogGroups(None, self.bus, self.settings.batches_topic, ends=False)  # type: ignore[arg-type]
        await source._open(standing.position.offset)
        loop = asyncio.get_running_loop()
        await self._make(self.moves.begin(self.step, loop.time()))
        since = loop.time()
        while True:
            group = await source._next(0.5)
            if group is not None:
                self.rows += self.consumption.feed(group)
            while len(self.rows) >= self.settings.rows_per_step:
                await self._finish_step()
                since = loop.time()
            await self._make(self.moves.look())
            if loop.time() - since > IDLE_S and self.consumption.read > self.told:
                await self._tell_idle()

    async def _tell_idle(self) -> None:
        passed = self.consumption.passed_idle()
        if passed.position > self.told:
            self.told = passed.position
            await self._do(Announce(self.moves.entry(self.step, passed)))

    async def _finish_step(self) -> None:
        size = self.settings.rows_per_step
        used, self.rows = self.rows[:size], self.rows[size:]
        self.step += 1
        step = fitted(self.step, used)
        fitting = list(step.fitting)
        skip = not fitting or skipped(self.step, self.weights, fitting)
        if not skip:
            self.weights = after(self.weights, fitting)
        unfit = frozenset((row.offset, row.index) for row in step.unfit)
        passed = self.consumption.finish_step(skipped=skip, unfit=unfit)
        now = asyncio.get_running_loop().time()
        position = self.consumption.position
        doing = self.moves.finish(self.step, passed, position, skipped=skip, now=now)
        await self._make(doing)
        self.told = max(self.told, passed.position)

    async def _make(self, doing: Doing) -> None:
        """`odradek.trainer.commit.protocol.drive`, between whose moves other processes go on."""
        outcome = None
        with suppress(StopIteration):
            while True:
                outcome = await self._do(doing.send(outcome))

    async def _do(self, move: Move) -> Any:
        if isinstance(move, CrashPoint):
            return self.at(move.point)
        if isinstance(move, SaveCheckpoint):
            return self._begin_checkpoint(move)
        if isinstance(move, AwaitCheckpoint):
            return await self._saved(wait=move.wait)
        if isinstance(move, WaitForEngine):
            return await self.fleet.reach()
        if isinstance(move, LoadWeights):
            folder = Path(f"/weights/{self.settings.run}/v{move.version}")
            self.engines.files[str(folder)] = self.weights
            self.at("weights_before_engine")
            served = await self.fleet.swap(folder, move.version)
            form = LORA if self.settings.lora_rank else "safetensors"
            return Loaded(folder.as_uri(), self.weights, served, form)
        return await self._say(move.event)

    def _begin_checkpoint(self, save: SaveCheckpoint) -> None:
        assert self.writing is None, "two checkpoints at once"
        self.writing = asyncio.create_task(self._write(save, self._state()))

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds, as it is now."""
        return {WEIGHTS: [self.weights.encode()], "optimizer": [self.weights.encode() * 2]}

    async def _write(self, save: SaveCheckpoint, contents: Any) -> Saved:
        """The writer's thread: between any two crash points the trainer goes on, or dies."""
        steps = checkpoint.writing(
            self.settings.output_dir,
            save.step,
            contents,
            keep=self.settings.keep,
            position=save.position,
        )
        rng = Random(f"{save.step}/{self.weights}")
        while True:
            await asyncio.sleep(rng.choice(PAUSES_S))
            try:
                point = next(steps)
            except StopIteration as end:
                return Saved(save.step, end.value)
            self.at(point)

    async def _saved(self, *, wait: bool) -> Saved | None:
        if self.writing is None or not (wait or self.writing.done()):
            return None
        saved = await self.writing
        self.writing = None
        return saved

    async def _say(self, event: Policy | Step) -> None:
        topic, key = (
            (POLICIES.name, event.name) if isinstance(event, Policy) else (STEPS.name, event.run)
        )
        value = codec.encode(event)
        headers = codec.headers(event, source="/trainer", subject=key, event_id=key)
        while True:
            try:
                await self.appender.append(topic, key=key, value=value, headers=headers)
            except LogUnavailable:
                await asyncio.sleep(1.0)
            else:
                return
