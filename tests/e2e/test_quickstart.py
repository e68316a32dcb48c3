"""The quickstart is followed literally: its files are written, its commands run, in its order."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 240


def section(title: str) -> str:
    """The text of a section of the page."""
    (found,) = re.findall(
        rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return found


def test_the_section_holds_the_files_of_a_project() -> None:
    """What the page tells to write is what a project consists of."""
    names = [
        text.split("\n")[0]
        for kind, text in FENCE.findall(section("Your own agent in ten minutes"))
        if kind != "sh"
    ]

    assert names == ["# agent.py", "# rewards.py", "# tasks.jsonl", "# odradek.toml"]


@pytest.mark.broker
@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_your_own_agent(tmp_path: Path, broker: str) -> None:
    """A newcomer who copies the section into a shell trains a model on another game.

    Where they are is as odd as it gets: the folder's name, the locale, and a company's HTTP proxy
    on which nothing answers.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": broker,
        "ODRADEK_TOPIC_PREFIX": f"quick{os.getpid()}.",
        "ODRADEK_TOPIC_PARTITIONS": "2",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
        **dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9"),
    }  # fmt: skip
    folder = tmp_path / "prüf, a:b #1 %41 鼎"
    folder.mkdir()
    background: list[subprocess.Popen[bytes]] = []
    said: dict[str, str] = {}
    try:
        for kind, text in FENCE.findall(section("Your own agent in ten minutes")):
            if kind != "sh":
                first, _, rest = text.partition("\n")
                (folder / first.removeprefix("# ")).write_text(rest)
                continue
            for line in text.splitlines():
                if line.startswith("cd "):
                    folder /= line.removeprefix("cd ")
                elif line.startswith("source "):
                    environment |= sourced(folder / line.removeprefix("source "))
                elif line == "odradek up":
                    background.append(started(folder, environment))
                    wait_until_up(background[0], folder)
                else:
                    if "rl.episodes.v1" in line:
                        steps_done(folder, environment, 1)
                    if "verify" in line:
                        time_out = time.monotonic() + TIMEOUT_S
                        while (
                            run(line, folder, environment).returncode
                            and time.monotonic() < time_out
                        ):
                            time.sleep(1)
                    done = run(line, folder, environment)
                    assert done.returncode == 0, done.stderr
                    said[line] = done.stdout
        assert (
            "48 tasks published, 384 samples"
            in said["odradek tasks publish tasks.jsonl --epochs 12"]
        )
        assert '"components": {' in said["odradek tail rl.episodes.v1 --no-follow"]
        assert "closed" in said["odradek verify"]
    finally:
        for process in background:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in {0, 130}
    assert left_behind(environment["ODRADEK_TOPIC_PREFIX"]) == []


def left_behind(mark: str) -> list[str]:
    """Processes whose environment holds a mark; zombies have none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def run(line: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command of the page."""
    return subprocess.run(
        shlex.split(line),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def sourced(path: Path) -> dict[str, str]:
    """What a file of `export NAME=value` says."""
    words = [shlex.split(line)[1] for line in path.read_text().splitlines()]
    return dict(word.split("=", 1) for word in words)


def hears_ctrl_c() -> None:
    """As in a terminal: a shell that runs the tests in the background lets it be ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def started(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start `odradek up`, which writes to up.log."""
    with (folder / "up.log").open("wb") as out:
        return subprocess.Popen(
            ["odradek", "up"], cwd=folder, env=environment, stdout=out, stderr=out,
            preexec_fn=hears_ctrl_c,  # noqa: PLW1509 - no threads run here
        )  # fmt: skip


def wait_until_up(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return once the other terminal's file is there and all is ready."""
    log = folder / "up.log"
    until = time.monotonic() + TIMEOUT_S
    while b"is up" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def steps_done(folder: Path, environment: dict[str, str], wanted: int) -> None:
    """Wait until the ledger holds so many optimizer steps."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        done = run("odradek tail rl.steps.v1 --no-follow --json", folder, environment)
        rows = [json.loads(line)["value"] for line in done.stdout.splitlines()]
        if (
            sum(row.get("optimized", True) for row in rows) >= wanted + 1
        ):  # the first is the start's
            return
        time.sleep(0.5)
    pytest.fail("no optimizer step was done")
