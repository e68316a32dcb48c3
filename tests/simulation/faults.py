"""What goes wrong with a world: each fault has a number, and can be left out by it."""

from random import Random
from typing import TYPE_CHECKING

from tests.simulation.network import Chances

if TYPE_CHECKING:
    from tests.simulation.engines import Engine
    from tests.simulation.world import Program, World


class Faults:
    """The faults of one world.

    Args:
        world: They are done to it.
        only: Apply only those whose numbers these are; None for all.
    """

    def __init__(self, world: "World", only: set[int] | None) -> None:
        self.world = world
        self.only = only
        self.number = 0
        self.applied: list[tuple[int, float, str]] = []
        """(number, seconds, what), and with -1 what came of it."""

    def apply(self, what: str) -> bool:
        """Whether the next fault is to happen; counts it."""
        number = self.number
        self.number += 1
        if self.only is not None and number not in self.only:
            return False
        self.applied.append((number, self.world.loop.time(), what))
        return True

    def note(self, what: str) -> None:
        """Something happened that is no fault of ours."""
        self.applied.append((-1, self.world.loop.time(), what))

    def schedule(self) -> None:
        """Put everything on the clock, and peace behind it."""
        loop = self.world.loop
        rng = Random(f"{self.world.seed}/faults")
        scenario = self.world.scenario
        for every, act in (
            (scenario.kill_every, self._kill_one),
            (scenario.freeze_every, self._freeze_one),
            (scenario.rebalance_every, self._rebalance_one),
            (scenario.outage_every, self._outage),
            (scenario.engine_every, self._trouble_engine),
            (scenario.leave_every, self._end_one),
        ):
            at = 0.0
            while every < 1000:
                at += rng.expovariate(1 / every)
                if at > scenario.trouble_s:
                    break
                loop.call_at(at, act, Random(rng.random()), context=loop.root)
        loop.call_at(scenario.trouble_s, self._peace, context=loop.root)

    def victim(self, rng: Random) -> "Program":
        """Whom the next kill or freeze meets."""
        programs = self.world.programs
        names = [name for name, program in programs.items() if not program.steady]
        names += ["trainer"]
        return programs[rng.choice(names)]

    def _kill_one(self, rng: Random) -> None:
        program = self.victim(rng)
        life = program.life
        if life is not None and not life.dead and self.apply(f"kill {life!r}"):
            self.world.kill(program)

    def _freeze_one(self, rng: Random) -> None:
        life = self.victim(rng).life
        seconds = rng.choice((0.5, 3.0, 8.0, 15.0)) * rng.uniform(0.8, 1.2)
        if life is None or life.dead or life.frozen or life.name in {"trainer", "follower"}:
            return
        if self.apply(f"freeze {life!r} for {seconds:.1f} s"):
            self.world.freeze(life, seconds)

    def _rebalance_one(self, rng: Random) -> None:
        name = rng.choice(sorted(self.world.groups))
        if self.apply(f"rebalance {name}"):
            self.world.groups[name].rebalance()

    def _end_one(self, rng: Random) -> None:
        """SIGTERM to a stage's worker or a dispatcher: it leaves its group, and joins again."""
        world = self.world
        lives = [
            (life, service)
            for services in (world.drivers, world.dispatchers)
            for life, service in services.items()
            if not life.dead and not life.frozen
        ]
        if not lives:
            return
        life, service = rng.choice(lives)
        if self.apply(f"end {life!r}"):
            service.stop()

    def _outage(self, rng: Random) -> None:
        seconds = rng.choice((0.5, 2.0, 6.0, 12.0))
        if self.apply(f"broker away for {seconds} s"):
            cluster = self.world.cluster
            cluster.down_until = max(cluster.down_until, self.world.loop.time() + seconds)

    def _trouble_engine(self, rng: Random) -> None:
        world = self.world
        how = rng.choice(("dies", "hangs", "refuses", "lags"))
        seconds = rng.choice((0.5, 3.0, 10.0, 30.0)) * rng.uniform(0.8, 1.2)
        engine = rng.choice(world.engines.troubled or world.engines.all)
        if engine.steady or not engine.up or not world.troubled:
            return
        if not self.apply(f"{engine.url} {how} for {seconds:.1f} s"):
            return
        loop = world.loop
        if how == "dies":
            engine.die()
            if engine is not world.engines.gone:
                loop.call_later(seconds, self._start_engine, engine, context=loop.root)
            return
        if how == "hangs":
            engine.hangs_until = loop.time() + seconds
        elif how == "refuses":
            engine.refuses = True
        else:
            engine.slow_s = rng.choice((0.3, 2.0))
        loop.call_later(seconds, engine.mend, context=loop.root)

    def _start_engine(self, engine: "Engine") -> None:
        if not engine.up:
            engine.start()

    def _peace(self) -> None:
        """No more faults: clocks are set, the frozen go on, the network is well."""
        self.note("peace")
        world = self.world
        world.troubled = False
        world.net.chances = Chances()
        world.cluster.slow_markers = 0.0
        world.engines.peace()
        for life in world.lives:
            life.skew = 0.0
            if life.frozen:
                world.thaw(life)
