"""`scripts/prove foreign`: an agent of another SDK, behind HTTP, is killed and started under load."""

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
from aiohttp import web

from odradek.agents.runners.http import HttpRunner
from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics, rows
from tests.agents.conftest import AGENT, Stage, StubProxy
from tests.chaos.world import Process, free_port

SCRIPT = Path(__file__).parent / "processes" / "foreign_agent.mjs"
MODULES = Path(__file__).parents[2] / ".foreign"
REPLY_S = 1.0
WAIT_S = 400.0


class Model(StubProxy):
    """Answers a call after a moment, for the episode whose token asks, and seals at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    async def complete(self, request: web.Request) -> web.Response:
        self.calls[request.match_info["episode"]] += 1
        await asyncio.sleep(REPLY_S)
        message = {"role": "assistant", "content": "four"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    @asynccontextmanager
    async def serving(self) -> Any:
        app = web.Application()
        app.router.add_post("/e/{episode}/seal", self.seal)
        app.router.add_post("/e/{episode}/v1/chat/completions", self.complete)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()


def agent_process(node: str, port: int, folder: Path) -> Process:
    """The agent: Node finds modules beside the script."""
    script = MODULES / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    return Process("agent", (node, str(script), str(port)), {}, folder / "agent.log")


async def prove(
    bootstrap: str, node: str, folder: Path, *, samples: int, kills: int
) -> dict[str, Any]:
    """Send samples, kill the agent among them; what became of each sample."""
    bus = BusSettings(
        bootstrap_servers=bootstrap, topic_prefix=f"{uuid4().hex[:6]}.", topic_partitions=3
    )
    await ensure_topics(bus, rows(agents=[AGENT], clients=["tests"]))
    appender = await KafkaAppender.connect(bus)
    port = free_port()
    model, agent = Model(), agent_process(node, port, folder)
    began = time.monotonic()
    async with model.serving():
        stage = Stage(bus, model, appender)
        host = await stage.host(HttpRunner(f"http://127.0.0.1:{port}"), concurrency=8)
        agent.start()
        timeouts = {"attempt_s": 120.0}
        await asyncio.gather(
            *(
                stage.send(f"m{number}", given="go", max_attempts=kills + 2, timeouts=timeouts)
                for number in range(samples)
            )
        )
        for number in range(kills):
            wanted = samples * (number + 1) // (kills + 2)
            await stage.until(lambda wanted=wanted: len(model.seals) >= wanted, WAIT_S)
            await stage.until(agent.kill, WAIT_S)
        await stage.until(lambda: len(model.seals) >= samples, WAIT_S)
        await stage.stop(host)
        await agent.stop()
    story = await stage.story()
    await appender.aclose()
    owner = {
        stage.episode(f"m{number}", attempt): number
        for number in range(samples)
        for attempt in range(1, kills + 3)
    }
    sealed = Counter(
        owner[episode] for episode, outcome, _ in model.seals if outcome == "completed"
    )
    aborted = [event for event in story if type(event).__name__ == "EpisodeAborted"]
    return {
        "samples": samples, "kills": kills, "s": round(time.monotonic() - began, 1),
        "lost": [number for number in range(samples) if not sealed[number]],
        "twice": [number for number, count in sealed.items() if count > 1],
        "attempts_given_up": len(aborted),
        "reasons": sorted({str(event.reason) for event in aborted}),
        "calls": model.calls.total(),
        "other_ends": sorted({outcome for _, outcome, _ in model.seals} - {"completed"}),
    }  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--samples", type=click.IntRange(10), default=300, show_default=True)
@click.option("--kills", type=click.IntRange(0), default=3, show_default=True)
@click.option("--node", default="node", show_default=True, help="The program.")
def main(samples: int, kills: int, node: str) -> None:
    """Play samples by an agent of the A2A SDK for JavaScript, which is killed with SIGKILL.

    It is started again at once. No sample is lost, and none counts twice.
    """
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        run = prove(broker.bootstrap_servers, node, Path(folder), samples=samples, kills=kills)
        found = asyncio.run(run)
    click.echo(json.dumps(found))
    missed = kills > 0 and not found["attempts_given_up"]  # then no kill met a run
    sys.exit(bool(found["lost"] or found["twice"] or found["other_ends"] or missed))


if __name__ == "__main__":
    main()
