"""The agent that A2A's integration kit instructs: it answers, or asks others and passes on what they say.

An instruction is a tree in the kit's own protobuf, whose module is loaded from the kit's folder.
"""

import asyncio
import importlib.util
from pathlib import Path
from uuid import uuid4

import grpc
import httpx
from a2a.client import ClientConfig, create_client
from a2a.helpers import get_message_text
from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import (
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)

PROTOBUF = "agents/python/v10/pyproto/instruction_pb2.py"
"""The kit's module of its instructions."""
MEDIA_TYPE = "application/x-protobuf"
BINDINGS = {"jsonrpc": "JSONRPC", "http_json": "HTTP+JSON", "grpc": "GRPC"}
FINISHED = "task-finished"
"""Stands in the answer of a task that is held: who subscribed has seen enough."""
HELD = 5
"""How often a held task says that it goes on."""
EVERY_S = 2.0
CALL_S = 30.0


def instruction_type(kit):
    """The kit's class of instructions."""
    spec = importlib.util.spec_from_file_location("instruction_pb2", Path(kit) / PROTOBUF)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Instruction


def is_held(instruction):
    """Whether the task is to go on behind its answer."""
    if instruction.HasField("steps"):
        return any(is_held(step) for step in instruction.steps.instructions)
    return instruction.return_response.hold_task


def message_texts(event):
    """What an event's message says, if it has one: of a task, also the messages before."""
    if event.HasField("message"):
        return [get_message_text(event.message)]
    holder = event.task if event.HasField("task") else event.status_update
    earlier = [each for each in getattr(holder, "history", ()) if each.role == Role.ROLE_AGENT]
    now = [holder.status.message] if holder.status.HasField("message") else []
    return [text for each in (*earlier, *now) if (text := get_message_text(each))]


class InstructionAgent(AgentExecutor):
    """Does what the kit's instructions say.

    Args:
        kit: The kit's folder.
    """

    def __init__(self, kit):
        self._instruction = instruction_type(kit)

    async def execute(self, context, event_queue):
        """See the SDK."""
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        (part,) = context.message.parts
        instruction = self._instruction.FromString(part.raw)
        answer = "\n".join(await self._follow(instruction))
        if is_held(instruction):
            held = updater.new_agent_message([Part(text=f"{answer}\n{FINISHED}")])
            await updater.start_work(held)
            for _ in range(HELD):
                await asyncio.sleep(EVERY_S)
                await updater.start_work()
        await updater.complete(updater.new_agent_message([Part(text=answer)]))

    async def cancel(self, context, event_queue):
        """See the SDK. The host cancels what `execute` awaits."""

    async def _follow(self, instruction):
        """The texts that an instruction brings in."""
        if instruction.HasField("return_response"):
            return [instruction.return_response.response]
        if instruction.HasField("call_agent"):
            return await self._call(instruction.call_agent)
        return [
            text for step in instruction.steps.instructions for text in await self._follow(step)
        ]

    async def _call(self, call):
        """Ask another agent over the transport that is named."""
        part = Part(
            raw=call.instruction.SerializeToString(),
            media_type=MEDIA_TYPE,
            filename="instruction.bin",
        )
        message = Message(role=Role.ROLE_USER, message_id=str(uuid4()), parts=[part])
        request = SendMessageRequest(message=message)
        config = ClientConfig(
            supported_protocol_bindings=[BINDINGS[call.transport.lower()]],
            streaming=call.streaming,
            grpc_channel_factory=grpc.aio.insecure_channel,
        )
        if call.HasField("push_notification"):
            url = f"{call.push_notification.url}/notifications"
            config.push_notification_config = TaskPushNotificationConfig(url=url, token="kit")
        async with httpx.AsyncClient(timeout=CALL_S) as http:
            config.httpx_client = http
            client = await create_client(call.agent_card_uri, client_config=config)
            if call.HasField("resubscribe"):
                return await leave_and_return(client, request)
            return [
                text
                async for event in client.send_message(request)
                for text in message_texts(event)
            ]


async def leave_and_return(client, request):
    """Leave a stream after its first event, subscribe to its task, and read on to the answer."""
    begun = client.send_message(request)
    first = await anext(begun)
    await begun.aclose()
    task = first.task.id or first.status_update.task_id
    async for event in client.subscribe(SubscribeToTaskRequest(id=task)):
        texts = message_texts(event)
        if any(FINISHED in text for text in texts):
            return [text.replace(FINISHED, "").strip() for text in texts]
    return []
