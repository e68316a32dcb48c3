"""The demo, with faults in its numbers and kills on the way, accounts for every episode, and learns."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from odradek.schemas.events import Step

DEMO_WITH_FAULTS = Path(__file__).with_name("demo_faults.py")

pytestmark = [
    pytest.mark.demo,
    pytest.mark.broker,
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def demo(folder: Path, *arguments: str) -> tuple[dict[str, Any], list[Step]]:
    """Run the demo with planted faults to its end; its figures, and what its ledger held."""
    figures, ledger = folder / "demo.json", folder / "steps.jsonl"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ODRADEK_")}
    done = subprocess.run(
        [sys.executable, str(DEMO_WITH_FAULTS), str(ledger), "demo", "--out", str(folder / "report"),
         "--json", str(figures), *arguments],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    steps = [msgspec.json.decode(line, type=Step) for line in ledger.read_bytes().splitlines()]
    return json.loads(figures.read_text()), steps


def broken_weights(folder: Path) -> list[str]:
    """Files of weights or moments below a folder that hold what is no number."""
    from odradek.trainer.commit.tensor_files import non_finite_tensor

    files = list(folder.rglob("*.safetensors"))
    assert files
    return [str(file) for file in files if non_finite_tensor(file)]


@pytest.mark.parametrize(
    ("killed", "target", "most_steps"),
    [
        pytest.param(("agent-hilo",), 0.0, 8, id="some steps"),
        pytest.param(
            ("proxy", "agent-hilo", "assembler", "trainer"), 0.9, 300,
            id="until it has learned", marks=pytest.mark.chaos,
        ),
    ],
)  # fmt: skip
def test_the_demo_survives_kill_nine_and_numbers_that_are_none(
    tmp_path: Path, killed: tuple[str, ...], target: float, most_steps: int
) -> None:
    """One kill -9 of each of these: exit 0, and the sums close.

    The engine tells a log probability of -9999 now and then: those rows are refused by name. One
    step's gradient is no number: it is told as skipped with its rows, moves nothing, and others
    follow it. The model learns from all the rest.
    """
    kills = [word for name in killed for word in ("--kill", name)]

    figures, steps = demo(tmp_path, "--target", str(target), "--max-steps", str(most_steps), *kills)

    assert figures["greedy_success"] >= target
    assert figures["conservation"]["closed"]
    assert [kill["process"] for kill in figures["kills"]] == list(killed)
    assert set(killed) <= set(figures["restarts_by_process"])
    counted = figures["conservation"]
    assert counted["samples"] == counted["episodes"] + sum(counted["exclusions"].values())
    assert (tmp_path / "report" / "index.html").exists()
    assert [] == broken_weights(tmp_path)

    refused = {(r.offset, r.row, r.episode_id) for step in steps for r in step.refused
               if r.reason == "logprobs"}  # fmt: skip
    assert 1 <= len(refused) <= 3
    assert all(episode and row is not None for _, row, episode in refused)

    # A step that a killed trainer did again stands twice; the last entry is the one that holds.
    line = {step.step: step for step in steps if step.optimized or step.skipped}
    assert [5] == [number for number, step in line.items() if step.skipped]
    skipped = line[5]
    assert (False, ()) == (skipped.optimized, skipped.used)
    rows = [refusal for refusal in skipped.refused if refusal.reason == "non_finite"]
    assert 32 == len({(refusal.offset, refusal.row) for refusal in rows})
    assert line[4].weights == skipped.weights
    assert line[4].version < skipped.version < line[6].version
    assert "loss" in skipped.metrics
