"""R17: every planted fault is caught by a check that was named for it, and its control passes.

The fault and its control are two runs of one seed and one schedule, with the same commands, clocks
and polls; the control's processes are the product as it is. A crash loop, a process that ends by
itself, a time-out or any other finding is no catch. A stall is none either: but where a fault loses
what a group waits for, its run ends by one, and the named check then says what was lost.
"""

import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from odradek.infra.bus import producer
from odradek.infra.bus import running as opened
from odradek.schemas import codec, events
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import TURNS
from tests.chaos.faults.power_cut import watched
from tests.chaos.kill_plan import Round
from tests.chaos.run import PARTITIONS, Run, once
from tests.chaos.verification.log import read
from tests.chaos.workload import TIMEOUTS, Workload

NONE: Final = "none"
STALL_S: Final = {True: 30.0, False: 120.0}
"""Of a run with a fault, and of one without: on a busy machine nothing moves for a while either."""
FAST: Final = 600.0
"""Seconds by which clocks are ahead, where they are."""
STRAYS: Final = 12
"""Turns of a hostile writer, of episodes that are closed, and as many of such that nobody opened."""
DEALS: Final = 12
"""How often partitions are dealt to two workers and back, at most."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """A schedule that provokes a fault, and the checks of which one must find it."""

    expect: frozenset[str]
    rounds: tuple[Round, ...] = ()
    beside: Callable[[Run], Awaitable[None]] | None = None
    stalls: bool = False
    """Whether the fault may leave groups waiting for ever."""
    poll_ms: int = 0
    """How long a poll waits, 0 for the product's own."""
    clocks: Mapping[str, float] = field(default_factory=dict)
    """Seconds by which clocks of processes are off."""
    quiet: bool = False
    processes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    load: int = 1
    """Times the episodes that were asked for."""


async def strays(run: Run) -> None:
    """Write late turns as somebody would whose network was away: nothing may open an episode."""
    await run.until(lambda: run.share >= 0.3)
    log = await read(run.bus.bootstrap_servers, run.bus.topic_prefix)
    closed = [event.episode_id for _, event in log.episodes if isinstance(event, events.Episode)]
    unknown = (f"nobody-opened-{number}" for number in count())
    async with opened(producer(run.bus), run.bus) as client:
        for episode in (*closed[:STRAYS], *(next(unknown) for _ in range(STRAYS))):
            turn = events.Turn(
                episode_id=episode, turn_id=f"stray-{episode}", writer="stray", seq=0
            )
            run.workload.strays.add(turn.turn_id)
            await client.send_and_wait(
                run.bus.topic(TURNS.name),
                key=episode.encode(),
                value=codec.encode(turn),
                partition=partition_for(episode, PARTITIONS),
            )


async def deal_anew(run: Run) -> None:
    """A second assembler comes and goes again and again, as long as there is load."""
    first = run.world.processes["assembler-0"]
    await run.until(lambda: run.share >= 0.02)
    for _ in range(DEALS):
        if run.share >= 0.9:
            return
        command = run.world.command("assembler-1", ("assemble", "--instance", "assembler-1"))
        second = run.world.add("assembler-1", command)
        second.start()
        await run.until(second.ready.is_set, hold=True)
        await run.until(lambda: len(first.partitions()) < PARTITIONS, hold=True)
        await run.world.processes.pop("assembler-1").stop()
        await run.until(lambda: len(first.partitions()) == PARTITIONS, hold=True)


PROOFS: Final[dict[str, Proof]] = {
    # Hosts that die after a run has ended, and before its request's offset is committed.
    "dedupe_off": Proof(
        frozenset({"call_twice", "episode_twice"}),
        (
            Round("agent-0", 0.05, 0.2, ("status_before_finish:12", "offsets_before_commit:2")),
            Round("agent-1", 0.25, 0.2, ("status_before_finish:12", "offsets_before_commit:2")),
            Round("agent-0", 0.5, 0.2, ("offsets_before_commit:3",)),
        ),
        stalls=True,
    ),
    # Between the offsets' commit and the results.
    "commit_first": Proof(
        frozenset({"committed_beyond"}),
        (
            Round("assembler-0", 0.05, 0.0, ("after_commit:3",)),
            Round("grouper", 0.3, 0.0, ("after_commit:3",)),
        ),
        stalls=True,
    ),
    # An owner is handed records of its new partitions while it takes them over.
    "no_seek": Proof(
        frozenset({"committed_beyond", "letter_unexplained"}),
        beside=deal_anew,
        stalls=True,
        poll_ms=1500,
        processes={"assembler-1": ()},
        load=6,
    ),
    "ghosts": Proof(frozenset({"low_water", "episode_unopened"}), beside=strays),
    # Clocks that are ahead: episodes that wait for a reward would be closed without it.
    "tick_unread": Proof(
        frozenset({"exclusion_unexplained"}),
        (Round("assembler-0", 0.2, 0.0, ("after_commit:4",)),),
        clocks={"assembler-0": FAST, "assembler-1": FAST},
        quiet=True,
    ),
}


def _workload(proof: Proof, plant: str, seed: int, episodes: int, model: Path) -> Workload:
    def wrap(name: str, command: tuple[str, ...]) -> tuple[str, ...]:
        off, poll_ms = str(proof.clocks.get(name, 0)), str(proof.poll_ms)
        return (
            sys.executable,
            "-m",
            "tests.chaos.processes.planted_faults",
            plant,
            off,
            poll_ms,
            *command[3:],
        )

    return Workload(
        seed, episodes * proof.load, 0, ("assemble",), model, wrap,
        rounds=proof.rounds, stall_s=STALL_S[plant != NONE], during=proof.beside, processes=proof.processes,
        quiet=proof.quiet,
        # A token lasts as long as a run may, and must outlast clocks that are off.
        timeouts=replace(TIMEOUTS, attempt_s=600, call_s=60, reward_s=5, group_s=4000)
        if proof.quiet else TIMEOUTS,
    )  # fmt: skip


def caught_by(proof: Proof, found: Result) -> list[str]:
    """The named checks that found something, if the run counts; [] if the fault was not caught."""
    stalled = found["broke"].startswith("nothing moves")
    if found["unasked_ends"] or (found["broke"] and not (stalled and proof.stalls)):
        return []
    if not found["counts"].get("batches"):
        return []
    return sorted(proof.expect & found["checks"].keys())


async def prove(
    fault: str, servers: str, folder: Path, model: Path, seed: int, episodes: int
) -> Result:
    """The fault and its control; `ok` if the one was caught and the other was clean."""
    proof = PROOFS[fault]
    runs = {}
    for plant in (NONE, fault):
        workload = _workload(proof, plant, seed, episodes, model)
        runs[plant] = await once(workload, servers, folder / (plant if plant == NONE else "fault"))
    by = caught_by(proof, runs[fault])
    return {
        "fault": fault,
        "expected": sorted(proof.expect),
        "caught_by": by,
        "also": sorted(runs[fault]["checks"].keys() - proof.expect),
        "broke": runs[fault]["broke"],
        "control_ok": runs[NONE]["ok"],
        "ok": bool(by) and runs[NONE]["ok"],
        "runs": runs,
    }


FSYNC: Final = "fsync_dropped"


def prove_fsync() -> Result:
    """A kill leaves the page cache alone, so this one is caught by a power cut (`tests.chaos.faults.power_cut`)."""
    from odradek.trainer.commit import checkpoint, durable_files

    def left(*, planted: bool) -> bool:
        """Whether a checkpoint that was told is there after the cut."""
        real = durable_files.fsync
        with tempfile.TemporaryDirectory() as scratch:
            root, after = Path(scratch) / "disk", Path(scratch) / "left"
            root.mkdir()
            durable_files.fsync = (lambda _: None) if planted else real
            try:
                with watched(root) as disk:
                    files = {"model.safetensors": [b"weights"]}
                    checkpoint.write(root / "run", 1, files, keep=1, position={"offset": 1})
                    return checkpoint.newest(disk.after_a_cut(after) / "run") is not None
            finally:
                durable_files.fsync = real

    control, faulty = left(planted=False), left(planted=True)
    return {
        "fault": FSYNC,
        "expected": ["checkpoint_lost"],
        "caught_by": [] if faulty else ["checkpoint_lost"],
        "also": [],
        "broke": "",
        "control_ok": control,
        "ok": control and not faulty,
    }
