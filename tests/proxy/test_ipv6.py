"""Proxy and engine on IPv6, as some hosts have nothing else."""

import pytest

from odradek.proxy.settings import ProxySettings
from tests.support.engines.stub_engine import listening


@pytest.mark.parametrize("host", ["::1", "[::1]", "0:0:0:0:0:0:0:1"])
async def test_a_call_goes_from_ipv6_to_ipv6(make, engine, host):
    """The proxy's own address is one that clients take, and so is the engine's."""
    async with (
        listening(engine.app(), "::1") as url,
        make(host=host, engine_url=f"{url}/v1") as bench,
    ):
        assert bench.url.startswith("http://[::1]:")
        reply = await bench.ask("hi")
        assert reply.choices[0].message.content
        (turn,) = bench.turns()
        assert "" == turn.error == turn.untrainable


def test_ipv6_loopback_is_loopback():
    """There, and only there, the proxy may go without tokens."""
    ProxySettings(host="[::1]", auth="none").check()
