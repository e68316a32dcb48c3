"""What a host does when a partition of its own cannot be written to."""

from odradek.agents.host.host import Host
from odradek.agents.host.tasks.index import TaskIndex
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.agents.settings import AgentSettings
from odradek.infra.bus import BusSettings, PlainWriter
from odradek.infra.errors import PartitionLost
from odradek.infra.runtime.episode_tokens import TokenSettings


async def hosting(ledger):
    """A host that owns partition 0 by a ledger."""
    settings = AgentSettings(name="late", proxy_url="http://127.0.0.1:1")
    host = Host(
        settings,
        BusSettings(bootstrap_servers="127.0.0.1:1"),
        None,
        tokens=TokenSettings(keys="k" * 32),
    )
    host._owned[0] = RequestPartition(0, 1, ledger, TaskIndex(), 0)
    return host


async def test_a_late_word_of_an_earlier_ownership_costs_nothing_today():
    """A run may hear that its partition was lost after the host has got it back."""
    before, now = PlainWriter(None), PlainWriter(None)
    host = await hosting(now)
    host.fail(PartitionLost("fenced"), before)
    assert [0] == list(host._owned)
    host.fail(PartitionLost("fenced"), now)
    assert [] == list(host._owned)
    await host._group.aclose()
    await host._sealer.aclose()
    await host._reader.stop()
