"""One simulated installation under one seed: processes, faults, and then peace until all is done."""

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import msgspec
from aiokafka.errors import KafkaError

from odradek.agents.dispatch import Dispatcher
from odradek.agents.errors import PartitionLost
from odradek.infra.bus import BusSettings
from odradek.infra.bus.admin import rows
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.events import Batch, Opened, Task, Timeouts
from odradek.schemas.topics import BATCHES, TASKS, TURNS
from odradek.streams.assembler import ASSEMBLE
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.errors import LaneLost, TransactionFailed
from odradek.streams.fold import Stage
from odradek.streams.grouper import GROUP
from odradek.streams.intake import intake
from simulation.cluster import Cluster, Message
from simulation.disk import Disk
from simulation.groups import groups_of
from simulation.host import AGENT, Hosts
from simulation.loop import Killed, Life, SimLoop, current_life, spawn
from simulation.network import Chances, Network
from simulation.producer import SimProducer
from simulation.seams import on_disk, simulated
from simulation.trainer import Engine, Trainer
from simulation.weather import Weather, bus_of, dispatching, training

INTAKE = intake()
STAGES = (INTAKE, ASSEMBLE, GROUP)
TIMES = Timeouts(call_s=2, run_s=8, seal_s=2, reward_s=6, group_s=30)
LEGITIMATE = (LaneLost, TransactionFailed, PartitionLost, BusError)
"""What may end a process that a supervisor starts again."""
PEACE_S = 300.0
"""Simulated seconds within which everything must have ended once the faults have."""


@dataclass
class Program:
    """A process that is started again whenever it ends."""

    name: str
    main: Callable[[], Coroutine[Any, Any, None]]
    steady: bool = False
    """No fault of ours touches it."""
    life: Life | None = None
    starts: int = 0


class World:
    """Everything of one seed.

    Args:
        seed: Decides all.
        weather: Instead of the seed's own.
        faults: Apply only the faults whose numbers these are; None for all.
    """

    def __init__(
        self, seed: int, *, weather: Weather | None = None, faults: set[int] | None = None
    ) -> None:
        self.seed = seed
        self.rng = Random(f"{seed}/world")
        self.weather = weather or Weather.drawn(Random(f"{seed}/weather"))
        self.faults = faults
        self.fault_number = 0
        self.applied: list[tuple[int, float, str]] = []
        self.loop = SimLoop()
        bus = self.bus_of("any")
        sizes = {bus.topic(name): bus.partitions(row) for name, row in rows([AGENT])}
        stamped = [bus.topic(name) for name, row in rows([AGENT]) if row.log_append_time]
        self.cluster = Cluster(self.loop, Random(f"{seed}/cluster"), sizes, stamped)
        self.groups = groups_of(
            self.loop, Random(f"{seed}/groups"), lambda topic: len(self.cluster.topics[topic])
        )
        self.net = Network(self.loop, Random(f"{seed}/net"), self.cluster, self.groups)
        self.disk = Disk(Random(f"{seed}/disk"))
        self.disk.path("runs").mkdir()
        self.disk.fsync(self.disk.path(""))
        self.training = training(self.weather.rows_per_step, self.weather.save_every).model_copy(
            update={"output_dir": self.disk.path("runs/policy")}
        )
        self.engine = Engine()
        self.hosts = Hosts(self.bus_of("hosts"), self.engine, seed, self.weather.mischief)
        self.programs: dict[str, Program] = {}
        self.lives: list[Life] = []
        self.drivers: dict[Life, KafkaDriver] = {}
        self.commits: list[tuple[str, Any, int, int]] = []
        """(stage, partition, low-water mark, done mark) of every commit of a stage."""
        self.failures: list[str] = []
        self.troubled = True
        self.points = Random(f"{seed}/points")
        self.kills = 0
        self.tasks: list[Task] = []
        self.opened: set[str] = set()
        self.batches: set[str] = set()
        self.cluster.on_append = self._count
        self.cluster.on_commit = self._note_commit

    def bus_of(self, process: str) -> BusSettings:
        """The bus as a process knows it."""
        return bus_of(process, self.weather.partitions)

    # -- what runs

    def _programs(self) -> None:
        for number in range(2):
            self._add(f"dispatch-{number}", self._dispatch)
        for stage in STAGES:
            workers = self.weather.workers if stage is ASSEMBLE else 2
            for number in range(workers):
                self._add(f"{stage.name}-{number}", partial(self._stage, stage))
        self._add("trainer", self._trainer)
        self._add("hosts", self.hosts.run, steady=True)
        self._add("publisher", self._publish, steady=True)

    def _add(
        self, name: str, main: Callable[[], Coroutine[Any, Any, None]], *, steady: bool = False
    ) -> None:
        self.programs[name] = Program(name, main, steady)
        self.start(self.programs[name])

    async def _dispatch(self) -> None:
        name = current_life().name if self.weather.static else None
        settings = dispatching(self.weather.open_groups, name)
        await Dispatcher(settings, self.bus_of(current_life().name)).run()

    async def _stage(self, stage: Stage) -> None:
        life = current_life()
        driver = KafkaDriver(
            self.bus_of(life.name),
            stage,
            clock=lambda: self.cluster.now() + life.skew,
            at=self.at,
            instance=life.name if self.weather.static else None,
        )
        self.drivers[life] = driver
        await driver.run()

    async def _trainer(self) -> None:
        await Trainer(self.bus_of("trainer"), self.training, self.engine, self.at).run()

    async def _publish(self) -> None:
        client = SimProducer()
        await client.start()
        rng = Random(f"{self.seed}/tasks")
        for number in range(self.weather.tasks):
            task = Task(
                task_id=f"task-{number}",
                agent=AGENT,
                group_size=self.weather.group_size,
                purpose="eval" if rng.random() < 0.15 else "train",
                rewards={"game": 1.0},
                timeouts=TIMES,
            )
            self.tasks.append(task)
            sent = await client.send(
                TASKS.name, key=task.task_id.encode(), value=codec.encode(task)
            )
            await sent
            await asyncio.sleep(rng.uniform(0, 2.0))
        await self.loop.create_future()

    # -- lives

    def start(self, program: Program) -> None:
        """Give a program a new life."""
        skew = self.rng.uniform(-1, 1) * self.weather.skew if self.troubled else 0.0
        program.starts += 1
        life = program.life = Life(program.name, program.starts, 0.0 if program.steady else skew)
        self.lives.append(life)
        task = self.loop.begin(life, program.main())
        task.add_done_callback(partial(self._ended, program, life), context=self.loop.root.copy())

    def _ended(self, program: Program, life: Life, task: "asyncio.Task[None]") -> None:
        if self.net.over or task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, (Killed, *LEGITIMATE)):
            lines = traceback.format_exception(error)
            self.failures.append(f"{life!r} ended with {error!r}\n{''.join(lines[-12:])}")
        if life is program.life and not life.dead:
            self._note(f"{life!r} ended: {error!r}")
            self._bury(program, life)

    def _bury(self, program: Program, life: Life) -> None:
        life.dead, life.died = True, self.loop.time()
        for group in list(self.groups.values()):
            group.vanish(life)
        wait = self.rng.uniform(0.2, 4.0)
        self.loop.call_later(wait, self.start, program, context=self.loop.root)

    def kill(self, program: Program) -> None:
        """SIGKILL; of the trainer's machine perhaps a power cut."""
        life = program.life
        if life is None or life.dead:
            return
        self.kills += 1
        if program.name == "trainer" and self.rng.random() < self.weather.power_cut:
            self.disk.crash()
        self._bury(program, life)

    def at(self, point: str) -> None:
        """A crash point of the code: die here, now and then."""
        life = current_life()
        if not self.troubled or self.points.random() >= self.weather.crash_point:
            return
        if self._fault(f"{life!r} dies at {point}"):
            self.kill(self.programs[life.name])
            raise Killed

    # -- faults

    def _fault(self, what: str) -> bool:
        """Whether the next fault is to happen; counts it."""
        number = self.fault_number
        self.fault_number += 1
        if self.faults is not None and number not in self.faults:
            return False
        self.applied.append((number, self.loop.time(), what))
        return True

    def _note(self, what: str) -> None:
        self.applied.append((-1, self.loop.time(), what))

    def _schedule(self) -> None:
        rng = Random(f"{self.seed}/faults")
        weather = self.weather
        for every, act in (
            (weather.kill_every, self._kill_one),
            (weather.freeze_every, self._freeze_one),
            (weather.rebalance_every, self._rebalance_one),
            (weather.outage_every, self._outage),
        ):
            at = 0.0
            while every < 1000:
                at += rng.expovariate(1 / every)
                if at > weather.trouble_s:
                    break
                self.loop.call_at(at, act, Random(rng.random()), context=self.loop.root)
        self.loop.call_at(weather.trouble_s, self._peace, context=self.loop.root)

    def _victim(self, rng: Random) -> Program:
        names = [name for name, program in self.programs.items() if not program.steady]
        names += ["trainer"]
        return self.programs[rng.choice(names)]

    def _kill_one(self, rng: Random) -> None:
        program = self._victim(rng)
        life = program.life
        if life is not None and not life.dead and self._fault(f"kill {life!r}"):
            self.kill(program)

    def _freeze_one(self, rng: Random) -> None:
        life = self._victim(rng).life
        seconds = rng.choice((0.5, 3.0, 8.0, 15.0)) * rng.uniform(0.8, 1.2)
        if life is None or life.dead or life.frozen or life.name == "trainer":
            return
        if self._fault(f"freeze {life!r} for {seconds:.1f} s"):
            life.frozen = True
            for group in list(self.groups.values()):
                group.vanish(life)
            self.loop.call_later(seconds, self._thaw, life, context=self.loop.root)

    def _thaw(self, life: Life) -> None:
        if life.dead:
            return
        for group in list(self.groups.values()):
            group.appear(life)
        self.loop.thaw(life)

    def _rebalance_one(self, rng: Random) -> None:
        name = rng.choice(sorted(self.groups))
        if self._fault(f"rebalance {name}"):
            self.groups[name].rebalance()

    def _outage(self, rng: Random) -> None:
        seconds = rng.choice((0.5, 2.0, 6.0, 12.0))
        if self._fault(f"broker away for {seconds} s"):
            self.cluster.down_until = max(self.cluster.down_until, self.loop.time() + seconds)

    def _peace(self) -> None:
        """No more faults: clocks are set, the frozen go on, the network is well."""
        self._note("peace")
        self.troubled = False
        self.net.chances = Chances()
        self.cluster.slow_markers = 0.0
        for life in self.lives:
            life.skew = 0.0
            if life.frozen:
                self._thaw(life)

    # -- watching

    def _count(self, message: Message) -> None:
        topic, value = message.topic, message.value or b""
        if topic == BATCHES.name:
            self.batches.add(codec.decode(value, Batch).task_id)
        elif topic == TURNS.name and value.startswith(b'{"type":"opened"'):
            self.opened.add(codec.decode(value, Opened).episode_id)

    def _note_commit(self, group: str, where: Any, offset: Any) -> None:
        for stage in STAGES:
            if group == self.bus_of("any").group(stage.name):
                done = offset.metadata.partition("done=")[2]
                self.commits.append((stage.name, where, offset.offset, int(done or 0)))

    def _quiet(self) -> str:
        """What is still to be done, "" if nothing is."""
        if self.loop.time() < self.cluster.down_until + 5.0:
            return "the broker was away a moment ago"
        missing = {task.task_id for task in self.tasks} - self.batches
        if len(self.tasks) < self.weather.tasks or missing:
            return f"tasks without a batch: {sorted(missing)}"
        if self.hosts.busy:
            return f"{self.hosts.busy} samples are being played"
        for stage in STAGES:
            topic = stage.source.name
            for partition in self.cluster.topics[topic]:
                if partition.open:
                    return f"an open transaction on {partition.name}"
                end = partition.last + 1
                known = self.cluster.offsets[self.bus_of("any").group(stage.name)]
                mark = known.get(partition.name)
                if end and (mark is None or mark.offset < end):
                    held = mark.offset if mark else None
                    return f"{stage.name} stands at {held} of {end} on {partition.name}"
        batches = self.cluster.topics[BATCHES.name][0].last + 1
        if self.trainer_position < batches:
            return f"the trainer stands at {self.trainer_position} of {batches}"
        return ""

    @property
    def trainer_position(self) -> int:
        """How far the trainer says that it is."""
        steps = self.cluster.topics["rl.steps.v1"][0].log
        told = [one.message.value for one in steps if one.message is not None]
        return msgspec.json.decode(told[-1] or b"{}").get("position", 0) if told else 0

    async def _watch(self) -> None:
        await asyncio.sleep(self.weather.trouble_s)
        deadline = self.loop.time() + PEACE_S
        calm = 0
        while calm < 3:
            await asyncio.sleep(2.0)
            left = self._quiet()
            calm = 0 if left else calm + 1
            if self.loop.time() > deadline:
                self.failures.append(f"does not come to rest: {left}")
                break
        self.loop.stop()

    # -- from the beginning to the end

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The disk and the clock, for whoever looks at what is left."""
        with simulated(self.net, self.at), on_disk(self.disk):
            yield

    def run(self, planted: AbstractContextManager[Any] | None = None) -> None:
        """Live through it all; what is left are the logs."""
        with simulated(self.net, self.at), on_disk(self.disk), planted or nullcontext():
            self.net.chances = self.weather.chances
            self.cluster.slow_markers = self.weather.slow_markers
            self._schedule()
            self._programs()
            spawn(self.loop, self._watch())
            self.loop.run(limit=10_000)
            for context in self.loop.unhandled:
                error = context.get("exception")
                if isinstance(error, (Killed, KafkaError, *LEGITIMATE)):
                    continue  # swallowed by aiokafka; what comes of it is seen later
                self.failures.append(f"unhandled: {context.get('message')}: {error!r}")
            self.loop.unhandled.clear()
            self.ghosts = {
                f"{life!r}[{lane.partition}]": lane.fold.open()
                for life, driver in self.drivers.items()
                if not life.dead
                for lane in driver.lanes
                if lane.fold.open()
            }
            self.net.over = True
            self.loop.bury(self.lives)
