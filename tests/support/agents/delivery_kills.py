"""Kill push dispatchers with SIGKILL while they post: `python -m … [EVENTS] [KILLS] [SEED]`.

Two dispatchers of one agent, on a broker of its own. Tasks have configs of one webhook, which
refuses now and then. At the end each event was taken, in the order of its task, as it is in the log.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    TaskPushNotificationConfig,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from aiohttp import web

from odradek.agents.binding.requests import dump
from odradek.agents.binding.responses import event_headers, stream_value
from odradek.agents.push.configs import TaskConfigs, configs_value
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics, rows
from tests.support.agents.webhook_receiver import WebhookReceiver

AGENT = "hilo"
EACH = 10
"""Events of a task."""
REFUSES = 0.1
PAUSE_S = 0.4
"""About how long a dispatcher serves before it is killed, once it is ready."""


class Dispatcher:
    """A process of `odradek push` that is started again when it was killed."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._command = (sys.executable, "-m", "odradek.infra.app.cli", "push", "--instance", name)
        self._environment = environment

    async def start(self) -> None:
        """Return once it serves."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stderr=asyncio.subprocess.PIPE
        )
        assert self.process.stderr
        async for line in self.process.stderr:
            if b"ready: push" in line:
                self._rest = asyncio.create_task(self.process.stderr.read())
                return
        raise SystemExit("a dispatcher ended before it was ready")

    async def end(self, number: signal.Signals) -> int:
        """Signal it, and await its end."""
        self.process.send_signal(number)
        await self._rest
        return await self.process.wait()


async def happen(bus: BusSettings, events: int) -> dict[str, list[bytes]]:
    """Tasks with their configs, and their events one after the other; by task its events' values."""
    appender = await KafkaAppender.connect(bus)
    happened: dict[str, list[bytes]] = {f"task-{n}": [] for n in range(events // EACH)}
    for generation in range(1, EACH + 1):
        for task, values in happened.items():
            status = TaskStatus(state=TaskState.TASK_STATE_WORKING)
            status.timestamp.GetCurrentTime()
            event = TaskStatusUpdateEvent(task_id=task, context_id="c", status=status)
            headers = event_headers(
                event, task_id=task, generation=generation, source="/a", traceparent=None
            )
            values.append(stream_value(event))
            await appender.append(
                f"a2a.events.{AGENT}", key=task, value=values[-1], headers=headers
            )
        await asyncio.sleep(0.2)
    await appender.aclose()
    return happened


async def register(bus: BusSettings, url: str, events: int) -> None:
    """The agent's card, and a config of each task."""
    await ensure_topics(bus, rows([AGENT]))
    appender = await KafkaAppender.connect(bus)
    card = AgentCard(name=AGENT, capabilities=AgentCapabilities(push_notifications=True))
    await appender.append("a2a.cards", key=AGENT, value=dump(card))
    for number in range(events // EACH):
        task = f"task-{number}"
        config = TaskPushNotificationConfig(id="hook", task_id=task, url=url)
        value = configs_value(TaskConfigs().put(config, 0))
        await appender.append(f"a2a.push.{AGENT}", key=task, value=value)
    await appender.aclose()


async def prove(bootstrap: str, events: int, kills: int, seed: int) -> dict[str, object]:
    """One run."""
    chance = random.Random(seed)
    bus = BusSettings(bootstrap_servers=bootstrap)
    environment = {
        **os.environ,
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "ODRADEK_WEBHOOK_HOSTS": "127.0.0.1",
        "ODRADEK_PUSH_RETRY_S": "0.05",
        "ODRADEK_PUSH_KEYS": "k" * 40,
    }
    began = time.monotonic()
    receiver = WebhookReceiver()
    receiver.answer = lambda _: web.Response(status=503 if chance.random() < REFUSES else 204)
    took: dict[str, list[tuple[int, bytes]]] = {}
    async with receiver.running():
        answer = receiver.answer

        def take(post):
            response = answer(post)
            if response.status == 204:
                task, _, generation = post.headers["webhook-id"].rpartition(".")
                took.setdefault(task, []).append((int(generation), post.body))
            return response

        receiver.answer = take
        await register(bus, f"{receiver.url}/hook", events)
        dispatchers = [Dispatcher(f"push-{n}", environment) for n in range(2)]
        await asyncio.gather(*(each.start() for each in dispatchers))
        happening = asyncio.create_task(happen(bus, events))
        for _ in range(kills):
            victim = chance.choice(dispatchers)
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE_S))
            await victim.end(signal.SIGKILL)
            await victim.start()
        happened = await happening
        wanted = {(task, n + 1) for task, values in happened.items() for n in range(len(values))}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and wanted - (
            seen := {(task, n) for task, posts in took.items() for n, _ in posts}
        ):
            await asyncio.sleep(0.2)
        codes = [await each.end(signal.SIGTERM) for each in dispatchers]
    firsts = {task: list(dict.fromkeys(n for n, _ in posts)) for task, posts in took.items()}
    return {
        "events": len(wanted),
        "kills": kills,
        "seed": seed,
        "lost": len(wanted - seen),
        "out_of_order": sum(order != sorted(order) for order in firsts.values()),
        "other_bytes": sum(
            happened[task][n - 1] != body for task, posts in took.items() for n, body in posts
        ),
        "again": sum(map(len, took.values())) - len(seen),
        "exit_codes": codes,
        "wall_s": round(time.monotonic() - began, 1),
    }


def main() -> int:
    events, kills, seed = (*map(int, sys.argv[1:]), *(2000, 20, 0)[len(sys.argv) - 1 :])
    with LocalBroker() as broker:
        found = asyncio.run(prove(broker.bootstrap_servers, events, kills, seed))
    print(json.dumps(found))
    bad = found["lost"] or found["out_of_order"] or found["other_bytes"] or any(found["exit_codes"])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
