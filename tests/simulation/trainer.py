"""The trainer without its model: the product's position, lineage, standing, moves and checkpoints.

Weights are a chain of hashes over the rows of each step, so equal weights mean equal training.
"""

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from odradek.infra.bus import BusSettings, KafkaAppender
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec
from odradek.schemas.events import LORA, Policy, Step
from odradek.schemas.topics import BATCHES, POLICIES, STEPS
from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.protocol import (
    Announce,
    CommitProtocol,
    CrashPoint,
    Doing,
    Loaded,
    LoadWeights,
    Move,
    SaveCheckpoint,
    WaitForEngine,
)
from odradek.trainer.commit.resume import lineage_of, read_log, stand
from odradek.trainer.feed.batch_reader import LogGroups
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.rows import Row
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.weights.fleet import Fleet
from tests.simulation.engines import FIRST, TIMEOUT_S, Engines

WEIGHTS = "weights"
IDLE_S = 1.0


def after(weights: str, rows: list[Row]) -> str:
    """The weights after a step on these rows."""
    told = ";".join(f"{row.episode_id}/{row.index}/{row.advantage:.6f}" for row in rows)
    return hashlib.sha256(f"{weights}|{told}".encode()).hexdigest()


def skipped(step: int, weights: str, rows: list[Row]) -> bool:
    """Whether a step comes to no number: one in four does, and never more than two in a row."""
    return step % 3 != 1 and int(after(weights, rows)[:4], 16) % 4 == 0


class Trainer:
    """One start of the trainer: makes the product's moves on the simulated disk, engines and log.

    Args:
        bus: Where Kafka is.
        settings: The product's; `output_dir` is on the simulated disk.
        engines: Get the weights.
        at: Called at each crash point.
    """

    def __init__(
        self, bus: BusSettings, settings: TrainerSettings, engines: Engines, at: Any
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.engines = engines
        self.at = at
        self.weights = FIRST
        self.fleet = Fleet(
            [engines.client(engine, settings, at) for engine in engines.all],
            timeout_s=TIMEOUT_S,
            tell=lambda _: None,
        )
        self.rows: list[Row] = []
        self.told = -1

    async def run(self) -> None:
        """Train for ever."""
        ledger, policies = await read_log(self.bus)
        standing = stand(self.settings, ledger, policies)
        lineage = lineage_of(self.settings, ledger, standing)
        self.step = standing.position.step
        if standing.folder is not None:
            self.weights = (standing.folder / WEIGHTS).read_text()
        self.moves = CommitProtocol(self.settings, standing, lineage)
        self.consumption = Cursor(self.settings.rules, lineage, standing.position)
        self.appender = await KafkaAppender.connect(self.bus)
        source = LogGroups(None, self.bus, BATCHES.name, ends=False)  # type: ignore[arg-type]
        await source._open(standing.position.offset)
        await self._make(self.moves.begin(self.step))
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            group = await source._next(0.5)
            if group is not None:
                self.rows += self.consumption.feed(group)
            while len(self.rows) >= self.settings.rows_per_step:
                await self._finish_step()
                since = loop.time()
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
        skip = skipped(self.step, self.weights, used)
        if not skip:
            self.weights = after(self.weights, used)
        passed = self.consumption.finish_step(skipped=skip)
        doing = self.moves.finish(self.step, passed, self.consumption.position, skipped=skip)
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
            return self._checkpoint(move)
        if isinstance(move, WaitForEngine):
            return await self.fleet.reach()
        if isinstance(move, LoadWeights):
            folder = Path(f"/weights/v{move.version}")
            self.engines.files[str(folder)] = self.weights
            self.at("weights_before_engine")
            served = await self.fleet.swap(folder, move.version)
            form = LORA if self.settings.lora_rank else "safetensors"
            return Loaded(folder.as_uri(), self.weights, served, form)
        return await self._say(move.event)

    def _checkpoint(self, save: SaveCheckpoint) -> str:
        return checkpoint.write(
            self.settings.output_dir,
            save.step,
            self._fill,
            keep=self.settings.keep,
            position=save.position,
            at=self.at,
        )

    def _fill(self, folder: Any) -> None:
        (folder / WEIGHTS).write_text(self.weights)
        (folder / "optimizer").write_text(self.weights * 2)

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
