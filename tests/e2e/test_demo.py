"""The demo, with everything killed once on the way, learns and accounts for every episode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLED = ("proxy", "agent-hilo", "assembler", "trainer")


@pytest.mark.demo
@pytest.mark.broker
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_survives_kill_nine_of_every_kind(tmp_path: Path) -> None:
    """One kill -9 each of proxy, agent host, assembler and trainer: exit 0, and the sums close."""
    kills = [word for name in KILLED for word in ("--kill", name)]
    figures_file = tmp_path / "demo.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ODRADEK_")}

    done = subprocess.run(
        [sys.executable, "-m", "odradek.infra.cli", "demo", "--out", str(tmp_path / "report"),
         "--json", str(figures_file), *kills],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=850,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-4000:]
    figures = json.loads(figures_file.read_text())
    assert figures["greedy_success"] >= 0.9
    assert figures["conservation"]["closed"]
    assert [kill["process"] for kill in figures["kills"]] == list(KILLED)
    assert set(KILLED) <= set(figures["restarts_by_process"])
    counted = figures["conservation"]
    assert counted["samples"] == counted["episodes"] + sum(counted["exclusions"].values())
    assert (tmp_path / "report" / "index.html").exists()
