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

from odradek.agents.dispatch.dispatcher import Dispatcher
from odradek.infra.bus import BusSettings
from odradek.infra.bus.topics import rows
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, EpisodeOpened, Step, Task, Timeouts
from odradek.schemas.topics import BATCHES, MIXED, STEPS, TASKS, TURNS
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.errors import TransactionFailed
from odradek.streams.sampler.process import SamplerProcess
from odradek.streams.stage import Stage
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.stages.intake import intake
from odradek.trainer.errors import EngineFailure
from odradek.trainer.settings import TrainerSettings
from tests.simulation.cluster import Cluster, Message
from tests.simulation.disk import Disk
from tests.simulation.engines import Engines
from tests.simulation.failure import Failure
from tests.simulation.faults import Faults
from tests.simulation.groups import groups_of
from tests.simulation.host import AGENT, Hosts
from tests.simulation.loop import Killed, Life, SimLoop, current_life, spawn
from tests.simulation.network import Network
from tests.simulation.producer import SimProducer
from tests.simulation.quiescence import undone
from tests.simulation.scenario import (
    MIX,
    Scenario,
    bus_of,
    dispatching,
    following,
    training,
    trusting,
)
from tests.simulation.seams import on_disk, simulated
from tests.simulation.trainer import Trainer

INTAKE = intake()
STAGES = (INTAKE, ASSEMBLE, GROUP)
TIMES = Timeouts(call_s=2, attempt_s=8, seal_s=2, reward_s=6, group_s=30)
LEGITIMATE = (TransactionFailed, BusError, EngineFailure)
"""What may end a process that a supervisor starts again."""
TRAINERS = ("trainer", "follower")
"""Of one machine."""
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
        scenario: Instead of the seed's own.
        only: Apply only the faults whose numbers these are; None for all.
        faults: What goes wrong.
    """

    def __init__(
        self,
        seed: int,
        *,
        scenario: Scenario | None = None,
        only: set[int] | None = None,
        faults: type[Faults] = Faults,
    ) -> None:
        self.seed = seed
        self.rng = Random(f"{seed}/world")
        self.scenario = scenario or Scenario.of(seed)
        self.trouble = faults(self, only)
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
        self.training = training(
            self.scenario.rows_per_step,
            self.scenario.save_every,
            self.scenario.sync_every,
            self.scenario.spare_staleness,
            8 if self.scenario.adapters else 0,
            MIXED.name if self.scenario.mixed else BATCHES.name,
        ).model_copy(update={"output_dir": self.disk.path("runs/policy")})
        self.engines = Engines(
            self.scenario.engines,
            steady=self.scenario.steady_engine,
            gone=self.scenario.engine_gone,
            adapters=self.scenario.adapters,
        )
        self.hosts = Hosts(
            self.bus_of("hosts"),
            self.engines,
            seed,
            self.scenario.mischief,
            self.scenario.children,
        )
        self.without_engines: list[tuple[float, EngineFailure]] = []
        """Starts of the trainer that ended because of its engines, and when."""
        self.trainings = [self.training]
        """Of each trainer; the first one leads."""
        if self.scenario.beside:
            beside = {"output_dir": self.disk.path("runs/beside")}
            self.trainings.append(following(self.training).model_copy(update=beside))
        self.trainers: dict[str, Trainer] = {}
        """The newest start of each, by the name of its run."""
        self.programs: dict[str, Program] = {}
        self.lives: list[Life] = []
        self.drivers: dict[Life, KafkaDriver] = {}
        self.dispatchers: dict[Life, Dispatcher] = {}
        self.commits: list[tuple[str, Any, int, int]] = []
        """(stage, partition, low-water mark, done mark) of every commit of a stage."""
        self.failures: list[Failure] = []
        self.troubled = True
        self.points = Random(f"{seed}/points")
        self.kills = 0
        self.tasks: list[Task] = []
        self.junk: list[tuple[bytes, bytes]] = []
        """Key and value of records among the tasks that are none."""
        self.opened: set[str] = set()
        self.batches: set[str] = set()
        self.appended: list[Message] = []
        """Everything, committed or not, in the order in which the broker appended it."""
        self.appended_at: dict[Any, float] = {}
        """By (topic, partition, offset), the second of the simulation."""
        self.cluster.on_append = self._count
        self.cluster.on_commit = self._note_commit

    def bus_of(self, process: str) -> BusSettings:
        """The bus as a process knows it."""
        return bus_of(process, self.scenario.partitions)

    # -- what runs

    def _programs(self) -> None:
        for number in range(2):
            self._add(f"dispatch-{number}", self._dispatch)
        for stage in STAGES:
            workers = self.scenario.workers if stage is ASSEMBLE else 2
            for number in range(workers):
                self._add(f"{stage.name}-{number}", partial(self._stage, stage))
        if self.scenario.mixed:
            self._add("sampler", self._sampler)
        for name, settings in zip(TRAINERS, self.trainings, strict=False):
            self._add(name, partial(self._trainer, name, settings))
        self._add("hosts", self.hosts.run, steady=True)
        self._add("publisher", self._publish, steady=True)

    def _add(
        self, name: str, main: Callable[[], Coroutine[Any, Any, None]], *, steady: bool = False
    ) -> None:
        self.programs[name] = Program(name, main, steady)
        self.start(self.programs[name])

    async def _dispatch(self) -> None:
        name = current_life().name if self.scenario.static else None
        settings = dispatching(self.scenario.open_groups, name, self.scenario.repeats)
        dispatcher = Dispatcher(settings, self.bus_of(current_life().name), trust=trusting())
        self.dispatchers[current_life()] = dispatcher
        await dispatcher.run()

    async def _stage(self, stage: Stage) -> None:
        life = current_life()
        driver = KafkaDriver(
            self.bus_of(life.name),
            stage,
            clock=lambda: self.cluster.now() + life.skew,
            at=self.at,
            instance=life.name if self.scenario.static else None,
        )
        self.drivers[life] = driver
        await driver.run()

    async def _sampler(self) -> None:
        await SamplerProcess(self.bus_of("sampler"), MIX, at=self.at).run()

    async def _trainer(self, name: str, settings: TrainerSettings) -> None:
        leader = None if settings is self.training else self._leader
        trainer = Trainer(self.bus_of(name), settings, self.engines, self.at, leader)
        self.trainers[settings.run] = trainer
        await trainer.run()

    def _leader(self) -> list[Step]:
        """What the ledger has of the run that leads."""
        entries = [codec.decode(one.value, Step) for one in self.cluster.committed(STEPS.name)]
        return [entry for entry in entries if entry.run == self.training.run]

    async def _publish(self) -> None:
        client = SimProducer()
        await client.start()
        rng, junk = Random(f"{self.seed}/tasks"), Random(f"{self.seed}/junk")
        for number in range(self.scenario.tasks):
            task = Task(
                task_id=f"task-{number}",
                agent=AGENT,
                group_size=self.scenario.group_size,
                purpose="eval" if rng.random() < 0.15 else "train",
                rewards={"game": 1.0},
                timeouts=TIMES,
            )
            self.tasks.append(task)
            sent = await client.send(
                TASKS.name, key=task.task_id.encode(), value=codec.encode(task)
            )
            await sent
            if junk.random() < self.scenario.mischief:
                await self._mistake(client, junk, task)
            await asyncio.sleep(rng.uniform(0, 2.0))
        await self.loop.create_future()

    async def _mistake(self, client: SimProducer, rng: Random, task: Task) -> None:
        """What somebody publishes who has it wrong."""
        nobody = msgspec.structs.replace(task, task_id=f"{task.task_id}-lost", agent="nobody")
        key, value = rng.choice(
            (
                (b"junk", b"{"),
                (b"another", codec.encode(task)),
                (nobody.task_id.encode(), codec.encode(nobody)),
            )
        )
        self.junk.append((key, value))
        await (await client.send(TASKS.name, key=key, value=value))

    # -- lives

    def start(self, program: Program) -> None:
        """Give a program a new life."""
        skew = self.rng.uniform(-1, 1) * self.scenario.skew if self.troubled else 0.0
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
            self.failures.append(
                Failure("ended", f"{life!r} ended with {error!r}\n{''.join(lines[-12:])}")
            )
        if isinstance(error, EngineFailure):
            self.without_engines.append((self.loop.time(), error))
        if life is program.life and not life.dead:
            self.trouble.note(f"{life!r} ended: {error!r}")
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
        if program.name in TRAINERS and self.rng.random() < self.scenario.power_cut:
            self.disk.crash()
            for other in self.programs.values():
                beside = other.name in TRAINERS and other is not program
                if beside and other.life is not None and not other.life.dead:
                    self._bury(other, other.life)
        self._bury(program, life)

    def freeze(self, life: Life, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        life.frozen = True
        for group in list(self.groups.values()):
            group.vanish(life)
        self.loop.call_later(seconds, self.thaw, life, context=self.loop.root)

    def thaw(self, life: Life) -> None:
        """SIGCONT."""
        if life.dead:
            return
        for group in list(self.groups.values()):
            group.appear(life)
        self.loop.thaw(life)

    def at(self, point: str) -> None:
        """A crash point of the code: die here, now and then."""
        life = current_life()
        if not self.troubled or self.points.random() >= self.scenario.crash_point:
            return
        if self.trouble.apply(f"{life!r} dies at {point}"):
            self.kill(self.programs[life.name])
            raise Killed

    # -- watching

    def _count(self, message: Message) -> None:
        topic, value = message.topic, message.value or b""
        self.appended.append(message)
        self.appended_at[message[:3]] = self.loop.time()
        if topic == BATCHES.name:
            self.batches.add(codec.decode(value, Batch).task_id)
        elif topic == TURNS.name and value.startswith(b'{"type":"episode_opened"'):
            self.opened.add(codec.decode(value, EpisodeOpened).episode_id)

    def _note_commit(self, group: str, where: Any, offset: Any) -> None:
        for stage in STAGES:
            if group == self.bus_of("any").group(stage.name):
                done = offset.metadata.partition("done=")[2]
                self.commits.append((stage.name, where, offset.offset, int(done or 0)))

    def asked(self) -> list[Task]:
        """The tasks that were published, and those that a dispatcher published again."""
        found = []
        for message in self.cluster.committed(TASKS.name):
            try:
                task = codec.decode(message.value, Task)
            except InvalidRecord:
                continue
            if task.repeats:
                found.append(task)
        return [*self.tasks, *found]

    def undone(self) -> str:
        """What is still to be done, "" if nothing is."""
        return undone(self, STAGES)

    async def _watch(self) -> None:
        await asyncio.sleep(self.scenario.trouble_s)
        deadline = self.loop.time() + PEACE_S
        calm = 0
        while calm < 3:
            await asyncio.sleep(2.0)
            left = self.undone()
            calm = 0 if left else calm + 1
            if self.loop.time() > deadline:
                self.failures.append(Failure("rest", f"does not come to rest: {left}"))
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
            self.net.chances = self.scenario.chances
            self.cluster.slow_markers = self.scenario.slow_markers
            self.trouble.schedule()
            self._programs()
            spawn(self.loop, self._watch())
            self.loop.run(limit=10_000)
            for context in self.loop.unhandled:
                error = context.get("exception")
                if isinstance(error, (Killed, KafkaError, *LEGITIMATE)):
                    continue  # swallowed by aiokafka; what comes of it is seen later
                self.failures.append(Failure("unhandled", f"{context.get('message')}: {error!r}"))
            self.loop.unhandled.clear()
            self.ghosts = {
                f"{life!r}[{partition.number}]": partition.fold.open()
                for life, driver in self.drivers.items()
                if not life.dead
                for partition in driver.partitions
                if partition.fold.open()
            }
            self.out = {
                repr(life): one.credit.out("train") + one.credit.out("eval")
                for life, one in self.dispatchers.items()
                if not life.dead
            }
            self.net.over = True
            self.loop.bury(self.lives)
