"""What runs beside the usual processes: for sampler, rescorer, push, gateways and an HTTP agent."""

import asyncio
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import httpx

from odradek.schemas.topics import A2A_EVENTS, MIXED, agent_topic
from tests.chaos.kill_plan import PROCESSES
from tests.chaos.processes.echo import HEARD
from tests.chaos.stream_client import TRY_S, StreamClient
from tests.chaos.verification import log
from tests.chaos.verification.delivery_checks import name_of, taken
from tests.chaos.verification.oracle import AGENT, ECHO
from tests.chaos.verification.revision_checks import unscored
from tests.chaos.world import RUNS_AT_ONCE, World, free_port

if TYPE_CHECKING:
    from tests.chaos.run import Run

CLIENTS: Final = 6
"""Messages under way at once through gateways."""


class Beside(Protocol):
    """Processes of a target, what is asked of them, and what they write down."""

    agents: tuple[str, ...]
    """Whose topics must exist before they start."""
    journals: Mapping[str, Path]
    """Where the verifier finds what was written down, by the name of its field in `Given`."""

    def __init__(self, folder: Path, seed: int) -> None: ...

    def join(self, world: World) -> None:
        """Add the processes to a world."""

    async def load(self, run: "Run") -> None:
        """Give them work until `run.calm`, then see it done."""


class PushTarget:
    """Two dispatchers post the agent's events to a webhook that now and then refuses."""

    agents = (AGENT,)

    def __init__(self, folder: Path, seed: int) -> None:
        del seed
        self._taken = folder / "taken.jsonl"
        self.journals = {"taken": self._taken}

    def join(self, world: World) -> None:
        """Add the processes to a world."""
        port = free_port()
        receiver = ("-m", "tests.chaos.processes.receiver", str(port), str(self._taken))
        world.add("webhook", (sys.executable, *receiver))
        url = f"http://127.0.0.1:{port}/hook"
        verb = ("subscribe", AGENT, "--to", url, "--group", "chaos", "--since", "beginning")
        env = {"ODRADEK_WEBHOOK_HOSTS": "127.0.0.1", "ODRADEK_PUSH_RETRY_S": "0.05"}
        for name in PROCESSES["push"]:
            world.add(name, world.command(name, (*verb, "--instance", name)), env)

    async def load(self, run: "Run") -> None:
        """Return once the webhook has taken every event that is in the log."""
        await run.calm.wait()
        topic = run.bus.topic(agent_topic(A2A_EVENTS, AGENT))
        names = {name_of(one) async for one in log.records(run.bus.bootstrap_servers, [topic])}
        while not names <= {name for name, _ in taken(self._taken)}:
            await asyncio.sleep(0.1)


class GatewayTarget:
    """Two gateways, clients that stream through them, and an agent without training behind them."""

    agents = (ECHO,)

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._streams, self._heard = folder / "streams.jsonl", folder / "heard"
        self._heard.touch()
        self.journals = {"streams": self._streams, "heard": self._heard}
        self._urls: list[str] = []

    def join(self, world: World) -> None:
        """Add the processes to a world."""
        untrained = {"ODRADEK_AGENT_TRAINING": "false", "ODRADEK_AGENT_CONCURRENCY": "100"}
        agent = ("agent", "tests.chaos.processes.echo:Echo", "--name", ECHO, "--instance", ECHO)
        env = {**untrained, HEARD: str(self._heard)}
        world.add(ECHO, world.command(ECHO, agent), env)
        for name in PROCESSES["gateway"]:
            port = free_port()
            self._urls.append(f"http://127.0.0.1:{port}/agents/{ECHO}/v1")
            world.add(name, world.command(name, ("gateway", "--port", str(port))))

    async def load(self, run: "Run") -> None:
        """Send messages one after another, several at once, and read each stream to its end."""
        numbers = itertools.count()
        async with httpx.AsyncClient(timeout=TRY_S) as http, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask(run, http, numbers))

    async def _ask(
        self, run: "Run", http: httpx.AsyncClient, numbers: "itertools.count[int]"
    ) -> None:
        while not run.calm.is_set():
            number = next(numbers)
            client = StreamClient(number, f"m{self._seed}-{number}", self._urls)
            await client.run(http, self._streams)


class HttpAgentTarget:
    """The scripted agent behind HTTP, on the A2A SDK's server, in place of the second host's own."""

    agents = ()
    journals: Mapping[str, Path] = {}

    def __init__(self, folder: Path, seed: int) -> None: ...

    def join(self, world: World) -> None:
        """Add the processes to a world."""
        port = free_port()
        world.add(
            "http-agent", (sys.executable, "-m", "tests.chaos.processes.http_agent", str(port))
        )
        verb = ("agent", "--a2a-url", f"http://127.0.0.1:{port}", "--name", AGENT)
        concurrency = ("--concurrency", str(RUNS_AT_ONCE))
        world.add(
            "agent-1", world.command("agent-1", (*verb, *concurrency, "--instance", "agent-1"))
        )

    async def load(self, run: "Run") -> None:
        """The run's own tasks are its work."""


class SamplerTarget:
    """A sampler draws old batches again, and the trainer learns from what it writes."""

    agents = ()
    journals: Mapping[str, Path] = {}

    def __init__(self, folder: Path, seed: int) -> None:
        del folder
        self._seed = seed

    def join(self, world: World) -> None:
        """Add the process to a world."""
        verb = ("sample", "--fresh", "2", "--replayed", "2", "--seed", str(self._seed))
        world.add("sampler", world.command("sampler", verb))
        world.processes["trainer"].env |= {
            "ODRADEK_TRAINER_BATCHES_TOPIC": MIXED.name,
            "ODRADEK_TRAINER_TIS": "2",
            "ODRADEK_TRAINER_MAX_STALENESS_REPLAYED": "1000",
        }

    async def load(self, run: "Run") -> None:
        """The run's own tasks are its work."""


class RescoreTarget:
    """All conversations are judged anew, again and again, while the run goes on."""

    agents = ()
    journals: Mapping[str, Path] = {}

    def __init__(self, folder: Path, seed: int) -> None: ...

    def join(self, world: World) -> None:
        """Add the process to a world."""
        world.add("rescorer", (sys.executable, "-m", "tests.chaos.processes.rescorer"))

    async def load(self, run: "Run") -> None:
        """Return once each conversation has its verdict."""
        await run.calm.wait()
        while unscored(await log.read(run.bus.bootstrap_servers, run.bus.topic_prefix)):
            await asyncio.sleep(0.5)


BESIDE: Final[dict[str, type[Beside]]] = {
    "sample": SamplerTarget,
    "rescore": RescoreTarget,
    "push": PushTarget,
    "gateway": GatewayTarget,
    "http-agent": HttpAgentTarget,
}
