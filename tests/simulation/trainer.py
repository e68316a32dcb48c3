"""The trainer without its model: the product's position, lineage, standing and checkpoints.

Weights are a chain of hashes over the rows of each step, so equal weights mean equal training. The
order of a finished step is that of `odradek.trainer.grpo`, which torch keeps out of here.
"""

import asyncio
import hashlib
from typing import Any

import msgspec

from odradek.infra.bus import BusSettings, KafkaAppender
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec
from odradek.schemas.events import Policy, Step
from odradek.schemas.topics import BATCHES, POLICIES, STEPS
from odradek.trainer import checkpoint
from odradek.trainer.batches import LogGroups
from odradek.trainer.consumption import Consumption, Passed
from odradek.trainer.rows import Row
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.standing import lineage_of, read_log, stand

WEIGHTS = "weights"
FIRST = "0" * 64
IDLE_S = 1.0


def after(weights: str, rows: list[Row]) -> str:
    """The weights after a step on these rows."""
    told = ";".join(f"{row.episode_id}/{row.index}/{row.advantage:.6f}" for row in rows)
    return hashlib.sha256(f"{weights}|{told}".encode()).hexdigest()


class Engine:
    """What samples: it has the weights that it was sent last."""

    def __init__(self) -> None:
        self.version = 0
        self.weights = FIRST
        self.told: list[tuple[int, str]] = []
        """Every (version, weights) that it was ever sent."""

    def load(self, version: int, weights: str) -> None:
        """Take weights under a version."""
        self.version, self.weights = version, weights
        self.told.append((version, weights))


class Trainer:
    """One start of the trainer.

    Args:
        bus: Where Kafka is.
        settings: The product's; `output_dir` is on the simulated disk.
        engine: Gets the weights.
        at: Called at each crash point.
    """

    def __init__(
        self, bus: BusSettings, settings: TrainerSettings, engine: Engine, at: Any
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.engine = engine
        self.at = at
        self.step = 0
        self.weights = FIRST
        self.rows: list[Row] = []
        self._begun = False

    async def run(self) -> None:
        """Train for ever."""
        ledger, policies = await read_log(self.bus)
        self.standing = stand(self.settings, ledger, policies)
        self.lineage = lineage_of(self.settings, ledger, self.standing)
        self.version = self.standing.version
        self.step = self.standing.position.step
        if self.standing.folder is not None:
            self.weights = (self.standing.folder / WEIGHTS).read_text()
        self.consumption = Consumption(self.settings.rules, self.lineage, self.standing.position)
        self.appender = await KafkaAppender.connect(self.bus)
        source = LogGroups(None, self.bus, BATCHES.name, ends=False)  # type: ignore[arg-type]
        await source._open(self.standing.position.offset)
        await self._sync()
        self._begun = True
        self.told = -1
        await self._begin()
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
            await self._say(STEPS.name, self.settings.run, self._entry(passed))

    async def _begin(self) -> None:
        swallowed = self.standing.swallowed
        await self._policy(swallowed.checkpoint if swallowed else "")
        self.at("policy_before_step")
        entry = self._entry(self._nothing())
        if swallowed is not None:
            entry = msgspec.structs.replace(
                entry,
                position=swallowed.position,
                row=swallowed.row,
                used=swallowed.used,
                refused=swallowed.refused,
                optimized=True,
                checkpoint=swallowed.checkpoint,
            )
        await self._say(STEPS.name, self.settings.run, entry)
        self.at("step_told")

    async def _finish_step(self) -> None:
        settings = self.settings
        used, self.rows = (
            self.rows[: settings.rows_per_step],
            self.rows[settings.rows_per_step :],
        )
        self.weights = after(self.weights, used)
        self.step += 1
        passed = self.consumption.finish_step()
        self.at("optimizer_before_checkpoint")
        digest = ""
        if self.step % settings.save_every == 0:
            digest = self._checkpoint(self._entry(passed, optimized=True))
        self.at("checkpoint_before_engine")
        if self.step % settings.sync_every == 0:
            await self._sync()
            self.at("engine_before_policy")
            await self._policy(digest)
            self.at("policy_before_step")
        entry = self._entry(passed, optimized=True, checkpoint=digest)
        await self._say(STEPS.name, settings.run, entry)
        self.at("step_told")
        self.told = max(self.told, passed.position)

    async def _sync(self) -> None:
        """Take a version in the ledger, then send the weights under it."""
        self.version += 1
        self.lineage.publish(self.version, self.step)
        taken = msgspec.structs.replace(self._entry(self._nothing()), weights="")
        await self._say(STEPS.name, self.settings.run, taken)
        self.at("version_before_weights")
        await asyncio.sleep(0.05)
        self.engine.load(self.version, self.weights)
        await asyncio.sleep(0.05)

    def _nothing(self) -> Passed:
        position = self.consumption.position
        return Passed(position.offset, position.row)

    def _entry(self, passed: Passed, *, optimized: bool = False, checkpoint: str = "") -> Step:
        return Step(
            run=self.settings.run,
            incarnation=self.standing.incarnation,
            step=self.step,
            position=passed.position,
            row=passed.row,
            policy=self.settings.policy_name,
            optimized=optimized,
            used=passed.used,
            refused=passed.refused,
            version=self.version,
            checkpoint=checkpoint,
            resumed="" if self._begun else self.standing.resumed,
            weights=self.weights,
        )

    def _checkpoint(self, entry: Step) -> str:
        position = self.consumption.position
        steps = sorted(self.lineage.steps)[-64:]
        return checkpoint.write(
            self.settings.output_dir,
            self.step,
            self._fill,
            keep=self.settings.keep,
            position={
                "offset": position.offset,
                "row": position.row,
                "step": position.step,
                "version": self.version,
                "versions": {str(one): self.lineage.step_of(one) for one in steps},
                "run": self.settings.run,
                "topic": self.settings.batches_topic,
                "entry": msgspec.to_builtins(entry),
            },
            at=self.at,
        )

    def _fill(self, folder: Any) -> None:
        (folder / WEIGHTS).write_text(self.weights)
        (folder / "optimizer").write_text(self.weights * 2)

    async def _policy(self, digest: str) -> None:
        name = self.settings.policy_name
        policy = Policy(
            name=name,
            version=self.version,
            uri=f"file:///weights/v{self.version}",
            digest=self.weights,
            step=self.step,
            run=self.settings.run,
            checkpoint=digest,
        )
        await self._say(POLICIES.name, name, policy)

    async def _say(self, topic: str, key: str, event: Policy | Step) -> None:
        value = codec.encode(event)
        headers = codec.headers(event, source="/trainer", subject=key, event_id=key)
        while True:
            try:
                await self.appender.append(topic, key=key, value=value, headers=headers)
            except LogUnavailable:
                await asyncio.sleep(1.0)
            else:
                return
