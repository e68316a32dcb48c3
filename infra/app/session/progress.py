"""The live view of a run on a terminal; plain lines where there is none."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from odradek.infra.app.backlog import TRAINER
from odradek.infra.app.session.evaluation import EvaluationRound
from odradek.infra.app.session.follower import RunFollower
from odradek.infra.app.session.session import Session
from odradek.infra.app.supervisor import ChildState
from odradek.infra.app.tables import ReadableTable

REFRESH_S: Final = 0.5
LINE_S: Final = 5.0


class RunView:
    """The state of a run, for the terminal.

    Args:
        session: What runs.
        rounds: Evaluations so far.
        goal: The step at which it ends, 0 for none.
    """

    def __init__(self, session: Session, rounds: list[EvaluationRound], goal: int = 0) -> None:
        self._session = session
        self._rounds = rounds
        self._goal = goal
        self._began = time.time()
        self.phase = ""

    def figures(self) -> dict[str, str]:
        """Names and values, in order."""
        tally = self._session.tally
        recent = tally.recent()
        mean, highest = tally.staleness()
        greedy = [evaluation for evaluation in self._rounds if evaluation.kind == "greedy"]
        step = f"{tally.last_step}/{self._goal}" if self._goal else f"{tally.last_step}"
        return {
            "step": step,
            "greedy": f"{greedy[-1].success:.2f} (v{greedy[-1].version})" if greedy else "-",
            "success": f"{recent[0]:.2f}" if recent else "-",
            "reward": f"{recent[1]:.2f}" if recent else "-",
            "staleness": f"{mean:.1f} (max {highest:.0f})",
            "episodes": f"{len(tally.episodes)}, {tally.rate(time.time()):.1f}/s",
            "batches": str(sum(tally.batches.values())),
            "dead letters": str(sum(tally.letters.values())),
            "time": f"{time.time() - self._began:.0f} s",
        }

    def behind(self) -> dict[str, int]:
        """How many records each process has still to do."""
        watch: RunFollower = self._session.watch
        ours = self._session.supervisor.states
        # A trainer counts before it begins; where none is to run, nobody waits for it.
        return {name: lag for name, lag in watch.lags.items() if name in ours or name != TRAINER}

    def line(self) -> str:
        """Everything in one line."""
        parts = [f"{name} {value}" for name, value in self.figures().items()]
        lags = " ".join(f"{name}={lag}" for name, lag in self.behind().items() if lag)
        return f"{self.phase}: " + " · ".join(parts) + (f" · behind {lags}" if lags else "")

    def render(self) -> RenderableType:
        """Three small tables, side by side as far as the terminal is wide."""
        figures = [(Text(name, style="dim"), value) for name, value in self.figures().items()]
        supervisor = self._session.supervisor
        processes = []
        for name, state in supervisor.states.items():
            style = "green" if state is ChildState.READY else "yellow"
            restarts = supervisor.restarts[name]
            processes.append(
                (name, Text(state.value, style=style), str(restarts) if restarts else "")
            )
        lags = [(name, str(lag)) for name, lag in self.behind().items()]
        tables = (
            ReadableTable(("", ""), figures),
            ReadableTable(("process", "state", "restarts"), processes),
            ReadableTable(("process", "behind"), lags),
        )
        return Group(Text(self.phase, style="bold"), Columns(tables, padding=(0, 3)))


async def show(view: RunView, console: Console) -> None:
    """Keep the view on the console until cancelled."""
    if console.is_terminal:
        with Live(
            get_renderable=view.render, console=console, refresh_per_second=1 / REFRESH_S,
            transient=False,
        ):  # fmt: skip
            await asyncio.Event().wait()
    while True:
        await asyncio.sleep(LINE_S)
        console.print(view.line(), soft_wrap=True, highlight=False)


def teller(console: Console) -> Callable[[str], None]:
    """Report progress, one line each."""
    return lambda text: console.print(f"[dim]{text} …[/dim]", highlight=False)
