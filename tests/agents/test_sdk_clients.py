"""Clients of A2A's SDKs in other languages against the gateway: `scripts/prove a2a-clients`."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving

PLACE = Path(__file__).parents[2] / ".languages" / "sdks"
"""What the proof installs."""
BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")
CLIENTS = {
    "javascript": (BINDINGS, ("node", "js/client.mjs")),
    "go": (BINDINGS, ("go/client",)),
    # Its newest release calls an older gRPC service than A2A 1.0's.
    "java": (BINDINGS[:2], ("java", "-cp", "java/lib/*:java", "Client")),
}
RIGHT = {
    "answer": "Hello from TCK",
    "streamed": "Stream hello from TCK",
    "again": "TASK_STATE_COMPLETED",
    "absent": "TaskNotFoundError",
}
UNREAD = {("java", "HTTP+JSON")}
"""Who cannot read A2A 1.0's error object."""


@pytest.mark.broker
@pytest.mark.sdks
@pytest.mark.timeout(900)
async def test_each_sdk_reaches_an_agent_over_each_transport(stage):
    """It sends, streams, asks again, and gets the error of a task that is not there."""
    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    seen = {}
    async with serving(stage.bus, grpc_port=0) as gateway:
        address = f"{gateway.address}/agents/player"
        for name, (bindings, command) in CLIENTS.items():
            for binding in bindings:
                process = await asyncio.create_subprocess_exec(
                    *command, address, binding, cwd=PLACE, stdout=asyncio.subprocess.PIPE
                )
                printed, _ = await process.communicate()
                seen[name, binding] = json.loads(printed or "{}")
    right = {who: {**RIGHT, "absent": ""} if who in UNREAD else RIGHT for who in seen}
    assert right == seen
