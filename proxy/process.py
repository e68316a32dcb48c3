"""The process around the proxy: Kafka, the newest policy version, signals."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from odradek.infra.bus import BusSettings, KafkaAppender, admin, require_topics, running
from odradek.infra.runtime import process
from odradek.infra.runtime.episode_tokens import TokenSettings
from odradek.proxy.app import Proxy
from odradek.proxy.descriptors import raise_limit
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from odradek.schemas.topics import POLICIES, TURNS

log = logging.getLogger("odradek")
CHECK_S: Final = 1.0
YOUNG: Final = 20_000
"""New objects before the collector looks at them. A turn makes a few thousand, nearly all of which
are gone by their count of references; with Python's 700 the collector had a tenth of the CPU."""


async def serve(settings: ProxySettings, bus: BusSettings, keys: Sequence[str]) -> None:
    """Run a proxy over Kafka until SIGTERM or SIGINT.

    Raises BusError, ProxyMisconfigured, or LogLost.
    """
    await require_topics(bus, [TURNS.name, POLICIES.name])
    appender = await KafkaAppender.connect(bus, timeout_s=settings.log_timeout_s)
    versions = PolicyVersions(settings.policy)
    await versions.catch_up(bus)

    async def probe() -> None:
        async with running(admin(bus), bus):
            pass

    proxy = Proxy(settings, appender, keys=keys, versions=versions, log_probe=probe, proves=True)
    ended = asyncio.Event()
    process.on_signals(ended.set)
    try:
        async with serving(proxy) as url, _following(versions, bus) as following:
            log.info("proxy %s listens on %s, engine %s", proxy.writer, url, settings.engine_url)
            process.settle_collector(YOUNG, 20, 20)
            process.say_ready("proxy")
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), CHECK_S)
                proxy.check_log()
                if following.done():
                    following.result()
    finally:
        await appender.aclose()


@contextlib.asynccontextmanager
async def _following(
    versions: PolicyVersions, bus: BusSettings
) -> AsyncIterator[asyncio.Task[None]]:
    """Reads policies beside the block."""
    task = asyncio.create_task(versions.follow(bus))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(
    settings: ProxySettings | None = None,
    bus: BusSettings | None = None,
    token_settings: TokenSettings | None = None,
) -> None:
    """Run the proxy as a process of its own; settings come from the environment."""
    settings = settings or ProxySettings()
    settings.check()
    keys = [] if settings.auth == "none" else (token_settings or TokenSettings()).secrets()
    raise_limit()
    process.run("proxy", serve(settings, bus or BusSettings(), keys))
