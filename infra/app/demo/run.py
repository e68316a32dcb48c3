"""`odradek demo`: the bundled project, run to its target, with a report."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from odradek.infra.app.demo.course import DemoAims, DemoCourse
from odradek.infra.app.demo.curves import Curves, curves_of
from odradek.infra.app.demo.outcome import outcome, succeeded, trainers_of
from odradek.infra.app.demo.report import closing, problem, rows, summed, write
from odradek.infra.app.project import load
from odradek.infra.app.project.load import FILE
from odradek.infra.app.session.progress import RunView, show, teller
from odradek.infra.app.session.session import Session, guard, running
from odradek.infra.app.supervisor import UnknownProcess
from odradek.infra.app.tables import ReadableTable
from odradek.infra.bus import delete_topics
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.process import cancelled_by_sigterm
from odradek.streams.verify.report import Report, verify

log = logging.getLogger("odradek")

GAMES: Final = {"hilo": "project", "pairs": "pairs"}
"""Games, and the folder of each one's project here."""
BEYOND: Final = 1000
"""Steps that the trainer may do beyond the cap: the demo stops it, not the count."""
KEPT: Final = 10_000
"""Checkpoints that stay where they are played in the end: all of them."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the command line."""

    aims: DemoAims = field(default_factory=DemoAims)
    out: Path = Path("report")
    seed: int = 0
    driver: str = "kafka"
    game: str = "hilo"
    """One of GAMES."""
    trainers: tuple[str, ...] = ()
    """Losses of trainers on the same batches: the first one's leads. None: the project's own."""


def prepare(out: Path, game: str = "hilo", losses: Sequence[str] = ()) -> Path:
    """A fresh copy of a bundled project below the report's folder, with a trainer for each loss."""
    template = Path(__file__).with_name(GAMES[game])
    folder = out / "project"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in sorted(template.iterdir()):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        if losses:
            file = folder / FILE
            file.write_text(_with_trainers(file.read_text(), losses))
    except OSError as error:
        raise ProjectError(f"cannot write {folder}: {error.strerror}") from error
    return folder


def _with_trainers(text: str, losses: Sequence[str]) -> str:
    """A project file whose trainer has the first loss, and the others beside it.

    All of them keep every checkpoint, to be played when the run is over.
    """
    leader, *others = losses
    text = re.sub(r"(?m)^loss = .*$", f'loss = "{leader}"\nkeep = {KEPT}', text, count=1)
    return text + "".join(f'\n[[trainers]]\nname = "{loss}"\nloss = "{loss}"\n' for loss in others)


@contextmanager
def variables(defaults: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the while of a block; those that are set already stay."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


async def demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run it and return the figures. Output goes to `console`, the report into `out`."""
    began = time.monotonic()
    cancelled_by_sigterm()
    folder = await asyncio.to_thread(prepare, options.out, options.game, options.trainers)
    environment = {
        "ODRADEK_TRAINER_SEED": str(options.seed),
        "ODRADEK_ENGINE_SEED": str(options.seed),
        "ODRADEK_TRAINER_MAX_STEPS": str(options.aims.max_steps + BEYOND),
        "ODRADEK_STREAMS_DRIVER": options.driver,
    }
    if os.environ.get("ODRADEK_KAFKA_BOOTSTRAP_SERVERS"):
        environment["ODRADEK_TOPIC_PREFIX"] = f"demo-{os.getpid()}-{int(time.time())}."
    with variables(environment):
        project = load(folder)
        async with running(project, teller(console), keep=False, seed=options.seed) as session:
            course = await _learn(session, options.aims, console)
            report = await count(session)
            if "ODRADEK_TOPIC_PREFIX" in environment:  # somebody's cluster: leave nothing there
                await delete_topics(session.bus)
            conservation = {
                **report.conservation, "closed": report.closed, "eval": report.eval,
            }  # fmt: skip
            figures = outcome(course, conservation, wall_s=time.monotonic() - began)
    if options.trainers:
        curves = await _curves(session, options.trainers, console)
        figures["trainers"] = trainers_of(report, options.trainers, curves)
    page = await asyncio.to_thread(write, course, figures, options.out)
    tell(figures, page, console)
    return figures


async def _learn(session: Session, aims: DemoAims, console: Console) -> DemoCourse:
    for name in aims.kill:
        if name not in session.supervisor.children:
            raise UnknownProcess(
                f"--kill {name}: there are {', '.join(session.supervisor.children)}"
            )
    course = DemoCourse(session, aims=aims)
    course.view = RunView(session, course.rounds, aims.max_steps)
    display = asyncio.create_task(show(course.view, console))
    try:
        await guard(session, asyncio.create_task(course.learn()))
    finally:
        display.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await display
    return course


async def _curves(session: Session, losses: Sequence[str], console: Console) -> Curves:
    """Success of each trainer's checkpoints, by its loss."""
    teller(console)("playing with each trainer's checkpoints")
    project, leader = session.project, losses[0]
    runs = {leader: project.work / "runs" / "policy"}
    runs |= {name: project.work / "runs" / f"trainer-{name}" for name in losses[1:]}
    return await curves_of(project.folder, session.places.model, runs)


async def count(session: Session) -> Report:
    """Conservation, counted from the topics by what `odradek verify` uses."""
    report = await verify(session.bus)
    for line in report.lines()[:20]:
        log.warning("verify: %s", line)
    return report


def tell(figures: Mapping[str, Any], page: Path, console: Console) -> None:
    """The result on the terminal."""
    cells = []
    for name in ("greedy", "sampled"):
        first = figures[f"{name}_success_first"]
        last = figures["greedy_success" if name == "greedy" else "sampled_success_last"]
        cells.append((f"{name} success", f"{first:.2f} → {last:.2f}"))
    cells.append(("steps", str(figures["steps"])))
    for name, train, other in rows(figures["conservation"]):
        cells.append((name, f"{train} (and {other} in evaluation)" if other else train))
    for name, trained in figures.get("trainers", {}).items():
        cells.append((f"{name}{', which leads' if trained['leads'] else ''}", summed(trained)))
    cells.append(("process restarts", str(figures["process_restarts"])))
    cells += [(f"time: {name}", f"{seconds:.1f} s") for name, seconds in figures["phases"].items()]
    cells.append(("time in all", f"{figures['wall_s']:.1f} s"))
    console.print(ReadableTable(("", ""), cells))
    console.print(closing(figures["conservation"]), highlight=False)
    console.print(f"report: {page}", highlight=False)
    if not succeeded(figures):
        console.print(f"[red]not reached: {problem(figures)}[/red]", highlight=False)
