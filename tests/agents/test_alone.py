"""A2A on Kafka for people who train nothing."""

import subprocess
import sys

import pytest
from a2a.types import Message, Part, Role, SendMessageRequest, TaskState

from odradek.agents.client import KafkaConnection, KafkaTransport
from tests.support.agents.conformance_agent import ConformanceAgent

WHOLE = """
import sys
import odradek.agents.attempt.executor, odradek.agents.client, odradek.agents.gateway.server
import odradek.agents.host.host, odradek.agents.host.server
import odradek.agents.replicas.event_stream
import odradek.agents.push.process, odradek.agents.subscriptions.subscribe
print(*sorted(sys.modules))
"""
TRAINING = ("odradek.trainer", "odradek.streams", "odradek.proxy", "torch", "faust")


def test_host_client_and_gateway_import_nothing_of_the_training():
    """Neither its processes, nor torch, nor Faust."""
    ended = subprocess.run(
        [sys.executable, "-c", WHOLE], capture_output=True, text=True, check=True
    )
    modules = ended.stdout.split()
    assert "odradek.agents.gateway.server" in modules
    assert [] == [name for name in modules if name.startswith(TRAINING)]


@pytest.mark.broker
async def test_a_host_without_training_writes_of_tasks_only(stage):
    """No episode, no reward, no seal; its task ends all the same."""
    await stage.host(ConformanceAgent(), training=False)
    async with KafkaConnection(stage.bus) as connection:
        transport = KafkaTransport(connection, "player", timeout_s=60.0)
        message = Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text="x")])
        answer = await transport.send_message(SendMessageRequest(message=message))
    assert TaskState.TASK_STATE_COMPLETED == answer.task.status.state
    assert [] == await stage.read("rl.turns.v1") == await stage.read("rl.rewards.v1")
    assert [] == stage.proxy.seals
    assert 2 == len(await stage.read("a2a.events.player"))
    assert 2 == len(await stage.read("a2a.tasks.player"))  # as it begins, and as it ends
