"""How fast old batches are drawn by priority, and how fast the memory of them is read back.

TorchRL's prioritized sampler, whose trees are C++, does the same work beside ours in the same run,
by turns, each in a process of its own on one core. Ours draws without repeats and from a seed of
its own each time; TorchRL's draws with repeats. Both have 100,000 entries, draw 64 and, where they
update, give these 64 other priorities. Its environment is made below `.peers/` and has our torch.
"""

import statistics
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from odradek.infra.app.bench.harness.processes import asked
from odradek.infra.errors import ProjectError
from odradek.infra.runtime import process
from odradek.schemas import codec
from odradek.schemas.events import Batch, BatchUse, Mixed, Pointer, Step
from odradek.schemas.topics import BATCHES, MIXED
from odradek.streams.sampler.memory import ReplayMemory
from odradek.streams.sampler.mixer import Mixer
from odradek.streams.sampler.process import BATCH_HEAD, MIXED_HEAD, WHOLE_STEP
from odradek.streams.sampler.rules import DrawRules, MixRules

FOLDER: Final = Path(".peers/torchrl")
PINNED: Final = (
    "torchrl==0.14.1", "tensordict==0.14.3", "hoptorch==0.1.4", "pyvers==0.2.3",
    "cloudpickle==3.1.3", "orjson==3.13.0",
)  # fmt: skip
SIZE: Final = 64
"""Entries of a draw."""
SAMPLES: Final = 8
"""Pointers of a batch that is read back."""

_OURS: Final = """
import sys, time
import numpy as np
from odradek.infra.app.bench.history.sampler import filled
entries, draws, size = map(int, sys.argv[1:])
memory, priorities = filled(entries)
print("ready", flush=True)
for line in sys.stdin:
    began, update = time.process_time(), line.strip() == "update"
    for number in range(draws):
        drawn = memory.draw(size, (0, number, 0))
        if update:
            memory.rate(drawn.offsets, priorities)
    print(size * draws / (time.process_time() - began), flush=True)
"""
_TORCHRL: Final = """
import sys, time
import torch
from torchrl.data.replay_buffers.samplers import PrioritizedSampler
from torchrl.data.replay_buffers.storages import LazyTensorStorage
entries, draws, size = map(int, sys.argv[1:])
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
sampler = PrioritizedSampler(entries, alpha=0.6, beta=0.4)
storage = LazyTensorStorage(entries)
storage.set(torch.arange(entries), torch.arange(entries))
sampler.extend(torch.arange(entries))
sampler.update_priority(torch.arange(entries), torch.rand(entries, generator=generator))
priorities = torch.rand(size, generator=generator)
print("ready", flush=True)
for line in sys.stdin:
    began, update = time.process_time(), line.strip() == "update"
    for _ in range(draws):
        index, _ = sampler.sample(storage, size)
        if update:
            sampler.update_priority(index, priorities)
    print(size * draws / (time.process_time() - began), flush=True)
"""


def filled(entries: int) -> tuple[ReplayMemory, Any]:
    """A memory of so many entries, and other priorities for a draw of them."""
    memory = ReplayMemory(DrawRules(capacity=entries, half_life=0.0, max_uses=0))
    random = np.random.default_rng(0)
    memory.add(np.arange(entries), random.random(entries))
    return memory, random.random(SIZE)


def draws_beside(*, repeats: int, draws: int, entries: int, torchrl: bool) -> dict[str, Any]:
    """Draws by priority, and draws with new priorities, in entries a CPU second."""
    arguments = tuple(map(str, (entries, draws, SIZE)))
    commands = {"odradek": (sys.executable, "-c", _OURS, *arguments)}
    if torchrl:
        _install()
        commands["torchrl"] = (str(FOLDER / "bin" / "python"), "-c", _TORCHRL, *arguments)
    measured: dict[str, dict[str, list[float]]] = {
        name: {"draws": [], "updates": []} for name in commands
    }
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(asked(name, command, core=0))
            for name, command in commands.items()
        }
        for child in children.values():
            while child.answer() != "ready":
                pass
        for _ in range(repeats):
            for name, child in children.items():
                measured[name]["draws"].append(float(child.ask("draw")))
                measured[name]["updates"].append(float(child.ask("update")))
    figures: dict[str, Any] = _figures(measured["odradek"])
    if torchrl:
        figures["torchrl"] = _figures(measured["torchrl"])
        for name in ("draws", "updates"):
            each = zip(measured["odradek"][name], measured["torchrl"][name], strict=True)
            figures[f"{name}_ratio"] = round(statistics.median(a / b for a, b in each), 2)
    return figures


def rebuilding(*, repeats: int, pointers: int) -> dict[str, Any]:
    """CPU seconds to read a memory back, for a million pointers, from the bytes of the records.

    Of batches, of the steps that used them, and of the mixed topic, where each batch was fresh once
    and drawn once.
    """
    process.settle_collector(100_000, 50, 100)  # as the sampler's process does
    rebuilt = [_rebuilt(pointers) for _ in range(repeats)]
    return {
        "rebuild_s_per_million": round(statistics.median(rebuilt), 2),
        "rebuild_repeats": [round(each, 2) for each in rebuilt],
    }


def _figures(measured: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "draws_per_s": round(statistics.median(measured["draws"])),
        "updates_per_s": round(statistics.median(measured["updates"])),
        "repeats": {name: [round(each) for each in values] for name, values in measured.items()},
    }


def _install() -> None:
    """Make TorchRL's environment where it is missing. Raises ProjectError."""
    whole = FOLDER / ".whole"
    if whole.exists() and whole.read_text() == str(PINNED):
        return
    python = str(FOLDER / "bin" / "python")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        (site,) = FOLDER.glob("lib/python*/site-packages")
        (site / "torch.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--no-deps", *PINNED], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProjectError(
            f"TorchRL cannot be installed into {FOLDER}: {error}; --no-torchrl leaves it out"
        ) from error
    whole.write_text(str(PINNED))


def _rebuilt(pointers: int) -> float:
    """CPU seconds to read a million pointers back, measured on so many."""
    batches, steps = _records(pointers // SAMPLES)
    mixed = _mixed(batches)
    mixer = Mixer(MixRules(draws=DrawRules(capacity=len(batches))))
    began = time.process_time()
    for value in mixed:
        mixer.drew(MIXED_HEAD(value))
    for offset, value in enumerate(batches):
        mixer.remember(offset, BATCH_HEAD(value), value)
    for offset, value in enumerate(steps):
        mixer.recall(offset, WHOLE_STEP(value))
    mixer.settle(len(batches), len(steps))
    return (time.process_time() - began) * 1e6 / (len(batches) * SAMPLES)


def _mixed(batches: list[bytes]) -> list[bytes]:
    """What the mixed topic holds of them: each as a fresh one, and the one before drawn again."""
    written = []
    for offset, value in enumerate(batches):
        batch = msgspec.structs.replace(
            codec.decode(value, Batch), mixed=Mixed(batch=offset, batches=offset + 1, steps=0)
        )
        written.append(codec.encode(batch))
        if offset:
            again = Mixed(batch=offset - 1, batches=offset + 1, steps=0)
            origin = f"{BATCHES.name}/0/{offset - 1}"
            written.append(codec.encode(msgspec.structs.replace(batch, mixed=again, origin=origin)))
    return written


def _records(count: int) -> tuple[list[bytes], list[bytes]]:
    """Values of batches, and of steps that used eight of them each."""
    batches = []
    for number in range(count):
        episodes = tuple(
            Pointer(
                episode_id=f"task-{number}/{sample}/1", sample=sample, topic="rl.episodes.v1",
                partition=number % 12, offset=number * SAMPLES + sample,
                digest=f"{number * SAMPLES + sample:064x}", reward=float((number + sample) % 3),
            )
            for sample in range(SAMPLES)
        )  # fmt: skip
        batch = Batch(
            task_id=f"task-{number}", agent="bench", group_size=SAMPLES, episodes=episodes
        )
        batches.append(codec.encode(batch))
    steps = [
        codec.encode(
            Step(
                run="main", incarnation=1, step=first, position=first, topic=MIXED.name,
                used=tuple(
                    BatchUse(offset=at, rows=SAMPLES, source=at, advantage=0.5 + at % 7)
                    for at in range(first, min(first + 8, count))
                ),
            )
        )
        for first in range(0, count, 8)
    ]  # fmt: skip
    return batches, steps
