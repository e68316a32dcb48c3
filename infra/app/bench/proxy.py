"""What the proxy costs: CPU of an acked turn, and the time that it adds to a call.

The process under test has one core, load and mock engine the other. Direct calls, calls through a
bare capture loop (`baseline.py`) and calls through the proxy alternate, so that a noisy machine is
noisy for all. Every call is an episode's new turn with other messages and other token ids: deltas
save nothing here. Episodes that are over are sealed between two measurements, as hosts do.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import uvloop

from odradek.infra.app.bench.harness.cpu_profile import read_counts
from odradek.infra.app.bench.harness.load import (
    CHAT,
    IN_FLIGHT,
    WARM_UP,
    WORKLOADS,
    LoadTarget,
    LoadTest,
    Workload,
)
from odradek.infra.app.bench.harness.processes import pinned, started, two_cores
from odradek.infra.app.bench.harness.site import (
    BenchSite,
    count,
    kafka,
    log_of,
    mock_engine,
    observed,
    our_proxy,
    plain,
)
from odradek.infra.app.bench.peers import measure as measure_peers
from odradek.infra.bus import (
    BusSettings,
    delete_topics,
    ensure_topics,
)

FEW: Final = 1000
"""Calls in which each part of a turn is seen."""

OPTIONS: Final = (
    click.Option(["--repeats"], type=click.IntRange(1), default=12, show_default=True,
                 help="Measurements of each kind; figures are their medians."),
    click.Option(["--calls"], type=click.IntRange(50), default=1000, show_default=True,
                 help="Calls of a measurement at 32 in flight; a quarter as many at one."),
    click.Option(["--durability"], type=click.Choice(["required", "best_effort"]),
                 default="required", show_default=True, help="The proxy's own setting."),
    click.Option(["--workload", "workloads"], type=click.Choice(list(WORKLOADS)), multiple=True,
                 default=["chat"], show_default=True,
                 help="chat: 1,000 ids and 64 sampled; stream: the same in 65 chunks; "
                      "long: 16,000 ids. May be given several times; chat is always measured."),
    click.Option(["--parts"], is_flag=True,
                 help="What the CPU of a turn is spent on, of the bare loop's and of ours."),
    click.Option(["--peers"], is_flag=True,
                 help="Other proxies beside ours: those that scripts/prove peers installed."),
)  # fmt: skip


def run(
    *,
    repeats: int = 12,
    calls: int = 1000,
    durability: str = "required",
    workloads: tuple[str, ...] = ("chat",),
    parts: bool = False,
    peers: bool = False,
) -> dict[str, Any]:
    """Measure the proxy: CPU per acked turn and added latency, with a mock engine.

    Beside it a bare capture loop, and with --peers other proxies, in the same run. Without
    ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for the measurement.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="odradek-bench-")))
        tested, load = two_cores()
        place = BenchSite(stack.enter_context(log_of(load)), folder, tested, load)
        stack.enter_context(pinned(load))
        figures = uvloop.run(_measure(place, CHAT, repeats, calls, durability))
        further = [WORKLOADS[name] for name in dict.fromkeys(workloads) if name != CHAT.name]
        # Longer replies cost more: the same time for each workload, roughly.
        figures["workloads"] = {
            workload.name: uvloop.run(
                _measure(place, workload, repeats, max(50, calls // 4), durability)
            )
            for workload in further
        }
        if parts:
            figures["parts_us"] = uvloop.run(_spent(place, max(FEW, repeats * calls)))
        if peers:
            figures["peers"] = uvloop.run(measure_peers(place, repeats, calls))
        return figures


async def _measure(
    place: BenchSite, workload: Workload, repeats: int, calls: int, durability: str
) -> dict[str, Any]:
    """One workload on the engine itself, the bare loop and the proxy."""
    await ensure_topics(place.bus)
    bare_bus = place.bus.model_copy(update={"topic_prefix": f"{place.bus.topic_prefix}bare."})
    await ensure_topics(bare_bus)
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(mock_engine(place, workload))
            targets = [engine]
            if not workload.stream:  # the bare loop knows no streams
                targets.append(stack.enter_context(_bare(place, bare_bus, engine.port)))
            proxy = stack.enter_context(our_proxy(place, engine.port, durability))
            load = LoadTest(workload, [*targets, proxy])
            await load.measure_all(repeats, calls)
        return {
            **_figures(load, workload, durability),
            **await count(place.bus, proxy.answered),
            "cores": os.cpu_count(),
        }
    finally:
        await delete_topics(place.bus)
        await delete_topics(bare_bus)


def _figures(load: LoadTest, workload: Workload, durability: str) -> dict[str, Any]:
    figures = load.figures()
    report: dict[str, Any] = {
        "payload": {"prompt_ids": workload.prompt_ids, "sampled": workload.sampled},
        "durability": durability,
        **figures,
        "added_p50_ms": round(
            figures["proxy"]["c1"]["p50_ms"] - figures["direct"]["c1"]["p50_ms"], 4
        ),
    }
    if "bare" in figures:
        report["times_bare"] = {
            f"c{n}": round(load.times("proxy", "bare", n), 3) for n in IN_FLIGHT
        }
    return report


async def _spent(place: BenchSite, calls: int) -> dict[str, dict[str, float]]:
    """Microseconds a turn with 32 in flight that the bare loop and the proxy spend on each part."""
    await ensure_topics(place.bus)
    parts_us = {}
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(mock_engine(place, CHAT))
            files = {name: place.folder / f"{name}.parts" for name in ("bare", "proxy")}
            targets = [
                stack.enter_context(_bare(place, place.bus, engine.port, files["bare"])),
                stack.enter_context(our_proxy(place, engine.port, watched=files["proxy"])),
            ]
            load = LoadTest(CHAT, targets)
            for target in targets:
                await load.measure(target, 32, WARM_UP)
                target.process.child.send_signal(signal.SIGUSR1)
                sample = await load.measure(target, 32, calls)
                target.process.child.send_signal(signal.SIGUSR2)
                counts = read_counts(files[target.name])
                us_per_sample = sample.cpu_ms * 1000 / sum(counts.values())
                parts_us[target.name] = {
                    part: round(n * us_per_sample, 1) for part, n in counts.items()
                }
        return parts_us
    finally:
        await delete_topics(place.bus)


@contextmanager
def _bare(
    place: BenchSite, bus: BusSettings, engine_port: int, watched: Path | None = None
) -> Iterator[LoadTarget]:
    with started(
        *observed(watched), "odradek.infra.app.bench.harness.baseline", str(engine_port),
        folder=place.folder, core=place.tested, env=kafka(bus),
    ) as bare:  # fmt: skip
        yield LoadTarget("bare", bare, int(bare.wait_for("\n")), plain)
