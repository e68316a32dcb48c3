"""The demo with faults in its numbers: `demo_faults.py LEDGER demo ...`.

Engine and trainer of that demo are started through this file, too, each with its fault. Before the
demo's topics go, its ledger is written to LEDGER, one entry a line. Nothing here is ever imported by
the product.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VERSIONS = (2, 3, 4)
"""Of which policies one reply is spoiled each: its whole group may turn out equal, three hardly."""
STEP = 5
"""Whose gradient is spoiled."""


def far_logprob() -> None:
    """The engine tells -9999 of a token, its word for minus infinity, in one reply of a version.

    From version 2 on, whoever samples above temperature 0 plays for training.
    """
    from odradek.trainer.engine.batcher import Batcher

    sample = Batcher._sample
    left = set(VERSIONS)

    def spoiled(self: Any, rows: list[Any]) -> list[Any]:
        answers = sample(self, rows)
        for row, answer in zip(rows, answers, strict=True):
            if row.temperature > 0 and answer.version in left:
                left.remove(answer.version)
                answer.sampled.logprobs[0] = -9999.0
        return answers

    Batcher._sample = spoiled  # type: ignore[method-assign]


def nan_gradient() -> None:
    """The gradient of one step is no number."""
    sys.path.insert(0, str(ROOT))
    from odradek.trainer.step.grpo import LogTrainer
    from tests.support.trainer.nan_gradients import spoil

    begin = LogTrainer.__init__

    def spoiled(self: Any, *args: Any) -> None:
        begin(self, *args)
        spoil(self, STEP)

    LogTrainer.__init__ = spoiled  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {"engine": far_logprob, "train": nan_gradient}
"""By the verb of the process that has it, what plants it there."""


def through_here(ledger: str) -> None:
    """Start the demo's children that have a fault through this file, and keep its ledger."""
    import msgspec

    from odradek.infra.app.demo import run
    from odradek.infra.app.project import processes
    from odradek.infra.client import subscribe
    from odradek.schemas.topics import STEPS

    plain, count = processes.odradek, run.count

    def command(*words: str) -> tuple[str, ...]:
        if words[0] not in FAULTS:
            return plain(*words)
        return (sys.executable, str(Path(__file__).absolute()), ledger, *words)

    async def counted(session: Any) -> Any:
        with Path(ledger).open("wb") as file:
            async for entry in subscribe(
                STEPS.name, since="beginning", follow=False, bus=session.bus
            ):
                file.write(msgspec.json.encode(entry) + b"\n")
        return await count(session)

    processes.odradek = command
    run.count = counted


if __name__ == "__main__":
    to = sys.argv.pop(1)
    if sys.argv[1] == "demo":
        through_here(to)
    else:
        FAULTS[sys.argv[1]]()
    from odradek.infra.app.cli import main

    main()
