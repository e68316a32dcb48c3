"""Part e: how long weights travel, as a folder and between two processes on one card."""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from odradek.trainer.weights.directory import DirectoryTransfer
from odradek.trainer.weights.engines import Engines
from tests.card.clock import MB, Clock

BUCKET = 512 * 2**20
"""Bytes that are sent at once."""
SHARD = "500MB"


def folder(device, model, dtype, place: Path) -> dict:
    """Written, made durable and hashed, as for an engine; nobody loads it."""
    transfer = DirectoryTransfer(place, Engines(()), config=None, keep=1)
    transfer.init_weight_transfer()
    transfer.version = 1
    clock = Clock(device)
    with clock.block():
        transfer.send_weights((name, p.to(dtype)) for name, p in model.named_parameters())
    return {"seconds": round(clock.seconds, 3), "mb": _mb(transfer.folder)}


def sharded(device, model, place: Path) -> dict:
    """As transformers writes shards; no fsync and no digest."""
    clock = Clock(device)
    with clock.block():
        model.save_pretrained(place, max_shard_size=SHARD)
    return {"seconds": round(clock.seconds, 3), "mb": _mb(place)}


def _mb(place: Path) -> float:
    return round(sum(path.stat().st_size for path in place.iterdir()) / MB, 1)


def between(device, model, kind: str) -> dict:
    """A second process takes every parameter, and says what they sum up to."""
    tensors = [parameter.detach() for parameter in model.parameters()]
    expected = float(sum(t.double().sum() for t in tensors))
    context = mp.get_context("spawn")
    incoming, outgoing = context.Queue(), context.Queue()
    with tempfile.TemporaryDirectory() as place:
        shapes = [tuple(t.shape) for t in tensors]
        other = context.Process(
            target=_receiver, args=(kind, place, shapes, incoming, outgoing, str(device))
        )
        other.start()
        try:
            if kind == "gloo":
                _join(place, 0)
            assert outgoing.get(timeout=60) == "ready"
            clock = Clock(device)
            with clock.block():
                if kind == "gloo":
                    for bucket in _buckets(tensors):
                        dist.broadcast(bucket.cpu(), src=0)
                else:
                    incoming.put(tensors)
                received = outgoing.get(timeout=60)
        finally:
            incoming.put(None)
            other.join(20)
            if other.is_alive():
                other.terminate()
            if dist.is_initialized():
                dist.destroy_process_group()
    mb = sum(t.numel() * t.element_size() for t in tensors) / MB
    same = abs(received - expected) <= 1e-6 * max(abs(expected), 1.0)
    return {"seconds": round(clock.seconds, 3), "mb": round(mb, 1), "same": same}


def _join(place: str, rank: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)


def _buckets(tensors):
    """Flat parts of at most BUCKET bytes, in order; a parameter is never cut."""
    bucket, held = [], 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if bucket and held + size > BUCKET:
            yield torch.cat(bucket)
            bucket, held = [], 0
        bucket.append(tensor.flatten())
        held += size
    yield torch.cat(bucket)


def _receiver(kind: str, place: str, shapes, incoming, outgoing, device: str) -> None:
    """The other process: copies into weights of its own, and stays until it is told."""
    own = [torch.empty(shape, device=device) for shape in shapes]
    if kind == "gloo":
        _join(place, 1)
    outgoing.put("ready")
    if kind == "gloo":
        total = 0.0
        for bucket in _buckets(own):
            arrived = bucket.cpu()
            dist.broadcast(arrived, src=0)
            total += float(bucket.copy_(arrived).double().sum())
    else:
        sent = incoming.get()
        total = sum(float(o.copy_(s).double().sum()) for o, s in zip(own, sent, strict=True))
    outgoing.put(total)
    incoming.get()


def measure(device, sizes):
    """(name, figures) of each way."""
    model = sizes.model.made(64, device)
    with tempfile.TemporaryDirectory() as place:
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            yield f"folder, {name}", folder(device, model, dtype, Path(place) / name)
        yield "shards, float32", sharded(device, model, Path(place) / "shards")
    for kind in ("gloo", "shared"):
        yield f"two processes, {kind}", between(device, model, kind)
