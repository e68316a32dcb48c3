"""R4: a real trainer, killed with SIGKILL at every point, ends with the weights of one left alone.

All cases train on the same batches of one log, each as a run of its own; in the end `odradek verify`
reads the topics once for all of them. `scripts/test -m chaos tests/chaos/test_trainer_kills.py`
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from odradek.infra.bus import BusSettings, KafkaAppender, delete_topics, ensure_topics, rows
from odradek.infra.client import subscribe
from odradek.infra.runtime.crash_points import ADAPTER_POINTS, POINTS
from odradek.schemas import codec
from odradek.schemas.events import Step
from odradek.schemas.topics import BATCHES, EPISODES, STEPS
from odradek.streams.verify.report import verify
from tests.chaos.processes.fork_server import ForkServer
from tests.chaos.run import make_model
from tests.support.engines.weight_engine import WeightServer
from tests.support.trainer.played_groups import group_with_rewards

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.torch, pytest.mark.timeout(600)]

MAX_STEPS = 3
GROUPS = 12


@dataclass
class Training:
    """One log with batches, one model; every case is a run on them."""

    bus: BusSettings
    model: Path
    folder: Path
    fork_server: ForkServer
    weights: dict[tuple[int, int], str] = field(default_factory=dict)
    """What runs that nobody killed came to, by `save_every` and the rank of their adapter."""

    def start(
        self, run: str, engine: str, save_every: int, crash_at: str = "", rank: int = 0
    ) -> int:
        """One start of a trainer as a user starts it; its exit code."""
        env = {
            "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": self.bus.bootstrap_servers,
            "ODRADEK_TOPIC_PREFIX": self.bus.topic_prefix,
            "ODRADEK_TRAINER_MODEL": str(self.model),
            "ODRADEK_TRAINER_OUTPUT_DIR": str(self.folder / run),
            "ODRADEK_TRAINER_RUN": run,
            "ODRADEK_POLICY": run,
            "ODRADEK_ENGINE_URL": engine,
            "ODRADEK_TRAINER_SAVE_EVERY": str(save_every),
            "ODRADEK_TRAINER_MAX_STEPS": str(MAX_STEPS),
            "ODRADEK_TRAINER_ROWS_PER_STEP": "10",
            "ODRADEK_TRAINER_MICRO_TOKENS": "200",
            "ODRADEK_TRAINER_LEARNING_RATE": "2e-3",
            "ODRADEK_TRAINER_DEVICE": "cpu",
            "ODRADEK_TRAINER_LORA_RANK": str(rank),
            "ODRADEK_CRASH_AT": crash_at,
        }
        return self.fork_server.start(["train"], env, self.folder / f"{run}.log")

    def tail(self, run: str) -> str:
        """The end of what a run's processes said."""
        return (self.folder / f"{run}.log").read_text()[-2000:]

    def last_weights(self, run: str) -> str:
        """sha256 of the weights that a run ended with, by its ledger."""

        async def read() -> list[Step]:
            found = subscribe(
                STEPS.name, since="beginning", follow=False, bus=self.bus, where={"run": run}
            )
            return [step async for step in found]

        return asyncio.run(read())[-1].weights


async def publish(bus: BusSettings) -> None:
    """Batches of four rows, one in four of them without variance."""
    await ensure_topics(bus, rows())
    appender = await KafkaAppender.connect(bus)
    for number in range(GROUPS):
        rewards = [1.0] * 4 if number % 4 == 3 else [1.0, 0.0, float(number % 2), 0.5]
        group = group_with_rewards(number, rewards)
        pointers = []
        for pointer, episode in group.episodes:
            value = codec.encode(episode)
            at = await appender.append(EPISODES.name, key=episode.task_id, value=value)
            pointers.append(
                msgspec.structs.replace(
                    pointer, partition=at.partition, offset=at.offset, digest=codec.digest(value)
                )
            )
        batch = msgspec.structs.replace(group.batch, episodes=tuple(pointers))
        await appender.append(BATCHES.name, key=batch.task_id, value=codec.encode(batch))
    await appender.aclose()


@pytest.fixture(scope="module")
def training(broker, tmp_path_factory):
    """The log and the model; in the end the ledger of all runs closes."""
    folder = tmp_path_factory.mktemp("kills")
    bus = BusSettings(
        bootstrap_servers=broker, topic_prefix=f"k{uuid4().hex[:8]}.", topic_partitions=2
    )
    asyncio.run(publish(bus))
    with ForkServer() as fork_server:
        yield Training(bus, make_model(folder / "model"), folder, fork_server)
    report = asyncio.run(verify(bus))
    asyncio.run(delete_topics(bus))
    told = [line for line in report.lines() if "run " in line or "policy " in line]
    assert [] == told, "the trainers' ledger does not close"


def undisturbed(training: Training, save_every: int, rank: int) -> str:
    """The weights of a run that nobody kills."""
    key = save_every, rank
    if key not in training.weights:
        run = f"whole-{save_every}-{rank}"
        with WeightServer() as server:
            assert 0 == training.start(run, server.url, save_every, rank=rank), training.tail(run)
        training.weights[key] = training.last_weights(run)
    return training.weights[key]


WITH_AN_ADAPTER = [point for point in POINTS["train"] if point != "reloaded_before_version"]
CASES = [(point, every, 0) for point in POINTS["train"] for every in (1, 2)]
CASES += [(point, 1, 4) for point in (*WITH_AN_ADAPTER, *ADAPTER_POINTS)]


@pytest.mark.parametrize(("point", "save_every", "rank"), CASES)
def test_a_trainer_killed_anywhere_ends_with_the_same_weights(training, point, save_every, rank):
    """Killed at a point's second passing, then started again as its supervisor would."""
    expected = undisturbed(training, save_every, rank)
    run = f"{point}-{save_every}-{rank}"
    with WeightServer() as server:
        killed = training.start(run, server.url, save_every, f"{point}:2", rank)
        assert -9 == killed, training.tail(run)
        assert 0 == training.start(run, server.url, save_every, rank=rank), training.tail(run)
        served = server.engine.served
    assert expected == training.last_weights(run)
    versions = [version for version, _ in served]
    assert sorted(set(versions)) == versions, "an engine had a version twice"
