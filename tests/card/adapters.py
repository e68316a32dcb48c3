"""Part d: an adapter on a large frozen model."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from odradek.trainer.adapters import files
from odradek.trainer.adapters.lora import LoraAdapter
from odradek.trainer.settings import TrainerSettings
from tests.card.clock import MB, Clock
from tests.card.own_step import OwnStep, batch
from tests.card.parts import NotBuilt

RANK = 16


def measure(device, sizes):
    """(name, figures) of a step, and of the adapter's way to an engine. Raises NotBuilt."""
    if find_spec("peft") is None:
        raise NotBuilt("peft is not installed: pip install 'odradek[lora]'")
    rows = batch(sizes)
    model = sizes.adapted.made(2 * len(rows[0].ids), device, dtype=torch.bfloat16)
    # The frozen weights stay in bfloat16; what is trained is float32.
    settings = TrainerSettings(model="random", lora_rank=RANK)
    adapter = LoraAdapter(model, settings, digest="")
    for matrix in adapter.parameters():
        matrix.data = matrix.data.float()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4, fused=True)
    step = OwnStep(model, bf16=True, checkpointed=True)
    step.gradient.compute(rows)  # kernels are compiled
    optimizer.zero_grad()
    clock = Clock(device)
    before = {name: matrix.detach().clone() for name, matrix in adapter.tensors().items()}
    with clock.block():
        step.gradient.compute(rows)
        optimizer.step()
    moved = [not torch.equal(m, before[name]) for name, m in adapter.tensors().items()]
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    cuda = device.type == "cuda"
    yield (
        "step",
        clock.rate(sum(len(row.ids) for row in rows))
        | {
            "frozen_parameters": frozen,
            "trained_parameters": sum(m.numel() for m in adapter.parameters()),
            "moved": sum(moved) / len(moved),
            "whole_peak_mb": round(torch.cuda.max_memory_allocated() / MB, 1) if cuda else None,
        },
    )
    way = Clock(device)
    with tempfile.TemporaryDirectory() as name, way.block():
        files.write(Path(name), adapter.tensors(), adapter.shape, base="random")
        size = sum(path.stat().st_size for path in Path(name).iterdir()) / MB
    yield "folder", {"seconds": round(way.seconds, 4), "mb": round(size, 2)}
