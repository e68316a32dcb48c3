"""What subscribers cost those who play: CPU of the rollout side with 1, 2 and 4 of them, by turns.

The rollout side is all that stands between a task and its batch: proxy, agent host, dispatcher,
intake, assembler and grouper. It has one core, and broker, engine and subscribers have the other.
The broker, which serves subscribers, is counted beside it.
"""

import asyncio
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.bench.harness.load import Workload
from odradek.infra.app.bench.harness.processes import (
    AskedProcess,
    MeasuredProcess,
    asked,
    cpu_ms_of,
    started,
    two_cores,
)
from odradek.infra.app.bench.harness.site import BenchSite, kafka, mock_engine, port_of
from odradek.infra.app.bench.streams import await_count
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics, rows
from odradek.infra.client import publish_task
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.episode_tokens import new_key
from odradek.schemas.events import Task
from odradek.schemas.topics import BATCHES

AGENT: Final = "bench"
SIZE: Final = 8
COUNTS: Final = (1, 2, 4)
T_975: Final = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5 %, for 1 to 10 degrees of freedom."""
NORMAL_975: Final = 1.96


class RolloutSide(Struct, frozen=True):
    """The processes between tasks and batches."""

    processes: dict[str, MeasuredProcess]
    broker: int | None
    """Its process id, where it is ours."""

    def cpu_ms(self) -> dict[str, float]:
        """CPU milliseconds of each so far, the broker's among them."""
        used = {name: process.cpu_ms() for name, process in self.processes.items()}
        return used if self.broker is None else {**used, "broker": cpu_ms_of(self.broker)}


class Interval(Struct, frozen=True):
    """A mean ratio and its 95 % interval, from the logarithms of the repeats."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Interval":
        """Of at least two ratios; of one there is no interval."""
        logs = [math.log(ratio) for ratio in ratios]
        mean, freedom = statistics.fmean(logs), len(logs) - 1
        if not freedom:
            return cls(math.exp(mean), 0.0, math.inf)
        t = T_975[freedom - 1] if freedom <= len(T_975) else NORMAL_975
        spread = t * statistics.stdev(logs) / math.sqrt(len(logs))
        return cls(math.exp(mean), math.exp(mean - spread), math.exp(mean + spread))

    def rounded(self) -> dict[str, float]:
        """For JSON, which has no infinity."""
        high = None if math.isinf(self.high) else round(self.high, 4)
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": high}  # type: ignore[dict-item] # no interval


async def subscriber_cpu(
    bus: BusSettings, broker: int | None, *, repeats: int, groups: int
) -> dict[str, Any]:
    """CPU milliseconds an episode, by the number of subscribers.

    Args:
        bus: Where Kafka is.
        broker: The broker's process id, where it is ours.
        repeats: Rounds, each of all numbers of subscribers, in an order that changes.
        groups: Groups of eight episodes that are played in each measurement.
    """
    await ensure_topics(bus, rows([AGENT]))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        side = stack.enter_context(_rollout_side(bus, folder, broker))
        reader = (sys.executable, "-m", "odradek.infra.app.bench.history.reader")
        listeners = [
            stack.enter_context(asked("a subscriber", reader, core=two_cores()[1], env=kafka(bus)))
            for _ in range(max(COUNTS))
        ]
        played = _PlayedTasks(bus, groups)
        used: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
        await played.more(side)  # a round for warming up
        for repeat in range(repeats):
            turn = repeat % len(COUNTS)
            for count in (*COUNTS[turn:], *COUNTS[:turn]):
                for listener in listeners[:count]:
                    _switch(listener, "on")
                used[count].append(await played.more(side))
                for listener in listeners[:count]:
                    _switch(listener, "off")
    return figures_of(used, groups * SIZE)


def figures_of(used: dict[int, list[dict[str, float]]], episodes: int) -> dict[str, Any]:
    """The figures of what each process took, by the number of subscribers and round by round."""
    rollouts = {
        count: [sum(ms for name, ms in one.items() if name != "broker") for one in rounds]
        for count, rounds in used.items()
    }
    one = COUNTS[0]
    figures: dict[str, Any] = {
        "subscriber_cpu": {
            str(count): round(statistics.median(ms) / episodes, 4) for count, ms in rollouts.items()
        },
        "subscriber_ratio": {
            str(count): Interval.of(
                [a / b for a, b in zip(rollouts[count], rollouts[one], strict=True)]
            ).rounded()
            for count in COUNTS[1:]
        },
        "subscriber_repeats": {
            str(count): [round(ms / episodes, 4) for ms in each] for count, each in rollouts.items()
        },
        "subscriber_processes": {
            str(count): {
                name: round(statistics.median(one[name] for one in rounds) / episodes, 4)
                for name in rounds[0]
            }
            for count, rounds in used.items()
        },
    }
    return figures


class _PlayedTasks:
    """Tasks that are played, so many groups at a time."""

    def __init__(self, bus: BusSettings, groups: int) -> None:
        self._bus = bus
        self._groups = groups
        self._closed = 0

    async def more(self, side: RolloutSide) -> dict[str, float]:
        """Play the next ones; returns the CPU milliseconds that each process took for them."""
        before = side.cpu_ms()
        appender = await KafkaAppender.connect(self._bus, linger_ms=5)
        try:
            await asyncio.gather(
                *(
                    publish_task(
                        appender,
                        Task(
                            task_id=f"task-{self._closed + at}", agent=AGENT, group_size=SIZE,
                            rewards={"game": 1.0},
                        ),
                    )
                    for at in range(self._groups)
                )
            )  # fmt: skip
        finally:
            await appender.aclose()
        self._closed += self._groups
        await await_count(self._bus, BATCHES, self._closed)
        after = side.cpu_ms()
        return {name: ms - before[name] for name, ms in after.items()}


@contextmanager
def _rollout_side(bus: BusSettings, folder: Path, broker: int | None) -> Iterator[RolloutSide]:
    place = BenchSite(bus, folder, *two_cores())
    with ExitStack() as stack:
        engine = stack.enter_context(mock_engine(place, Workload("chat", 64, 16)))
        env = {
            **kafka(bus),
            "ODRADEK_TOKEN_KEYS": new_key(),
            "ODRADEK_ENGINE_URL": f"http://127.0.0.1:{engine.port}",
            "ODRADEK_PROXY_PORT": "0",
            "ODRADEK_TRUST_UNSIGNED": "accept",
            "ODRADEK_DISPATCH_OPEN_GROUPS": "64",
        }
        processes = {"proxy": _started(stack, folder, env, "proxy")}
        port = port_of(processes["proxy"].log.read_text())
        env["ODRADEK_PROXY_URL"] = f"http://127.0.0.1:{port}"
        player = "odradek.infra.app.bench.history.player:play"
        for name, verb in {
            "intake": ("intake",), "assembler": ("assemble",), "grouper": ("group",),
            "host": ("agent", player, "--name", AGENT),
            "dispatcher": ("dispatch", "--no-trainer"),
        }.items():  # fmt: skip
            processes[name] = _started(stack, folder, env, *verb)
        yield RolloutSide(processes, broker)


def _started(stack: ExitStack, folder: Path, env: dict[str, str], *verb: str) -> MeasuredProcess:
    """A process that is ready."""
    process = stack.enter_context(
        started("odradek.infra.app.cli", *verb, folder=folder, core=two_cores()[0], env=env)
    )
    process.wait_for("ready: ", timeout_s=60.0)
    return process


def _switch(listener: AskedProcess, word: str) -> None:
    """Have a listener begin, or end; returns once it has."""
    if (answer := listener.ask(word)) != word:
        raise ProjectError(f"a subscriber of the benchmark answers {answer!r} to {word!r}")
