"""A cancellation is not lost where it meets a time-out: whoever waits for the end would hang."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from odradek.agents.attempt.attempt import Ending
from odradek.agents.attempt.seal import ProxySealer
from odradek.infra.app.supervisor import Spec
from odradek.infra.app.supervisor import supervisor as supervising
from odradek.infra.app.supervisor.child import Child
from odradek.proxy.engines.client import Engine
from odradek.schemas.events import Outcome
from odradek.trainer.weights.client import HttpEngine

LIMIT_S = 0.2


async def seal(url):
    sealer = ProxySealer(url, ["k" * 32], agent="a")
    try:
        await sealer._ask("e1", Ending(outcome=Outcome.COMPLETED), LIMIT_S)
    finally:
        await sealer.aclose()


async def proxys_engine(url):
    engine = Engine(url)
    await engine.start()
    try:
        await engine.get("/health", timeout_s=LIMIT_S)
    finally:
        await engine.aclose()


async def trainers_engine(url):
    await HttpEngine(url).ask("GET", "/health", LIMIT_S)


async def health(url):
    child = Child(Spec(name="a", command=("true",), health=url), Path("/dev/null"))
    async with aiohttp.ClientSession() as session:
        await supervising._is_ready(child, session)


@pytest.mark.parametrize("ask", [seal, proxys_engine, trainers_engine, health])
async def test_a_cancellation_that_meets_a_time_out_counts(monkeypatch, ask):
    """Both are due in one turn of the loop, the time-out first; a silent server answers neither."""
    monkeypatch.setattr(supervising, "HEALTH_S", LIMIT_S)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = asyncio.create_task(ask(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        began = loop.time()

        def hold():
            while loop.time() < began + 3 * LIMIT_S:
                pass

        loop.call_at(began + LIMIT_S / 2, hold)
        loop.call_at(began + 2 * LIMIT_S, asking.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asking
