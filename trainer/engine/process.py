"""`odradek engine`: the small engine as a process, and how it follows a policy."""

import asyncio
import contextlib
import errno
import logging

from aiohttp import web

from odradek.infra.bus import BusSettings
from odradek.infra.client import subscribe
from odradek.infra.runtime import process
from odradek.infra.runtime.environment import address
from odradek.schemas.events import Policy
from odradek.schemas.http.weights import adapter_name
from odradek.schemas.topics import POLICIES
from odradek.trainer.engine.policies import folder_of, is_adapter, newest_policy
from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.errors import BadSettings, TrainerError, UnsupportedRequest

log = logging.getLogger("odradek")


async def _take(engine: SmallEngine, policy: Policy) -> None:
    """Serve a policy's weights, if they are newer than those in force and can be had."""
    if policy.version <= engine.newest:
        return
    try:
        folder = await asyncio.to_thread(folder_of, policy)
        if is_adapter(policy):
            await engine.batcher.load_adapter(adapter_name(policy.name, policy.version), folder)
            engine.batcher.forget_behind(engine.settings.max_staleness + 1)
        else:
            await engine.batcher.load(folder, policy.version)
    except UnsupportedRequest as error:
        log.warning("%s", error)
        return
    log.info("serving version %d (step %d), from the log", policy.version, policy.step)


async def _follow(engine: SmallEngine, bus: BusSettings) -> None:
    """Take what is announced while we run, in case the trainer asked an engine that died."""
    async for policy in subscribe(
        POLICIES.name, since="-5m", bus=bus, where={"name": engine.settings.policy}
    ):
        await _take(engine, policy)


async def serve(settings: EngineSettings, bus: BusSettings | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: Which model, where.
        bus: Where Kafka is; without it (or without `settings.policy`) no policy is followed.

    Raises:
        NoModel, NoTokenizer, BadSettings: In one line what to do.
        KafkaUnreachable: A policy is to be followed and there is no Kafka.
    """
    with process.observed("engine"):
        await _serve(SmallEngine(settings), settings, bus)


async def _serve(engine: SmallEngine, settings: EngineSettings, bus: BusSettings | None) -> None:
    following = bus is not None and bool(settings.policy) and bool(bus.bootstrap_servers)
    if following and bus is not None:
        policy = await newest_policy(bus, settings.policy)
        if policy is not None:
            await _take(engine, policy)
    runner = web.AppRunner(engine.app(), access_log=None, shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port, backlog=4096)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise BadSettings(f"port {settings.port} is in use: choose another --port") from error
        raise BadSettings(f"cannot listen on {settings.host}: {error}") from error
    port = runner.addresses[0][1]
    process.say_ready(f"engine on {address(settings.host, port)}/v1")
    done = asyncio.Event()
    process.on_signals(done.set)
    follower = asyncio.create_task(_follow(engine, bus)) if following and bus else None
    try:
        waits = {asyncio.create_task(done.wait())} | ({follower} if follower else set())
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if follower is not None and follower.done():
            follower.result()
    finally:
        if follower is not None:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError, TrainerError):
                await follower
        await runner.cleanup()
