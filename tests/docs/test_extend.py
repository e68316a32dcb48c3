"""docs/extend.md, followed to the letter: its files, its lines, and what they add."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extend.md").read_text()
FOLDERS = ("schemas", "infra", "agents", "proxy", "streams", "trainer")
FILE = re.compile(
    r"^`([\w/]+\.py)`(?: in your project:)?\n\n```python\n(.*?)```", re.MULTILINE | re.DOTALL
)
LINE = re.compile(
    r"^One line in `([\w/]+\.py)`, (?:in|below) `(.*?)`:\n\n```python\n(.*?)```",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with what the page adds; the folder that holds it."""
    root = tmp_path_factory.mktemp("extended")
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, root / "odradek" / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path, text in FILE.findall(PAGE):
        place = root / (path if path == "rewards.py" else f"odradek/{path}")
        assert not place.exists()
        place.write_text(text)
    for path, table, line in LINE.findall(PAGE):
        assert 1 == line.count("\n")
        place = root / "odradek" / path
        before = place.read_text()
        at = re.search(rf"^ *{re.escape(table)}[^\n]*?(?:\n[^\n]*?)??[({{]\n", before, re.MULTILINE)
        assert at, (path, table)
        place.write_text(before[: at.end()] + line + before[at.end() :])
    return root


@pytest.fixture
def run(package):
    """Runs a program with the copy, in the copy's folder; what it prints."""

    def program(*arguments):
        path = os.pathsep.join([str(package), str(ROOT)])
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=package,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
        )
        assert 0 == ended.returncode, ended.stderr
        return ended.stdout

    return program


def test_the_page_has_a_file_and_a_line_for_each():
    """Eight files; seven lines, since a reward needs none."""
    assert 8 == len(FILE.findall(PAGE))
    assert 7 == len(LINE.findall(PAGE))
    for _, text in FILE.findall(PAGE):
        assert 25 > len([line for line in text.splitlines() if line.strip()])


def test_the_verb_runs_and_the_others_are_listed(run):
    """The stage has become a verb, too, and the loss stands in the trainer's help."""
    assert "hello\n" == run("-m", "odradek.infra.app.cli", "hello")
    verbs = run("-m", "odradek.infra.app.cli", "--help")
    assert {"hello", "brevity"} <= set(verbs.split())
    assert "short conversations" in run("-m", "odradek.infra.app.cli", "brevity", "--help")
    assert "reinforce" in run("-m", "odradek.infra.app.cli", "train", "--help")


EXPORTS = """
import pathlib
from odradek.infra.app.exports import SINKS
from odradek.infra.app.exports.follow import LedgerExport
from odradek.infra.app.exports.sink import SinkOptions
from odradek.infra.app.exports.state import ExportState, StateFile
from odradek.infra.bus import Record
from odradek.schemas import codec
from odradek.schemas.events import Step
steps = [Step(run="main", incarnation=n, step=at, position=0, metrics={"loss": n + at / 8})
         for n, at in ((1, 1), (1, 2), (2, 2), (2, 3))]
file = StateFile(pathlib.Path("state.json"))
for at, step in enumerate(steps):
    sink = SINKS["jsonl"].load()(SinkOptions("main", pathlib.Path()))
    state = file.load(ExportState(run="main", sink="jsonl", ledger="rl.steps.v1"))
    export = LedgerExport(sink, state, file)
    export.feed(Record("rl.steps.v1", 0, at, "main", codec.encode(step), (), 0.0))
    export.flush()
    sink.close()
import json
print([json.loads(line)["loss"] for line in pathlib.Path("main.jsonl").read_text().splitlines()])
"""


def test_the_sink_gets_each_step_once(run):
    """What a trainer did again takes the place of the first, over exports that each go on."""
    assert "jsonl" in run("-m", "odradek.infra.app.cli", "export", "--help")
    assert "[1.125, 2.25, 2.375]\n" == run("-c", EXPORTS)


FOLDS = """
import asyncio
from odradek.infra.app.project.processes import STAGES
from odradek.infra.bus import MemoryAppender
from odradek.schemas import codec
from odradek.schemas.events import Conversation, ConversationTurn, Reward
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages import STAGE_POINTS
async def main():
    log = MemoryAppender()
    turn = ConversationTurn(turn_id="t", reply={"content": "yo"})
    said = Conversation(episode_id="e1", task_id="t1", agent="a", sample=0, turns=(turn,))
    await log.append(
        "rl.conversations.v1", key="e1", value=codec.encode(said),
        headers=codec.headers(said, source="/x", subject="e1", event_id="e1"),
    )
    driver = MemoryDriver(log, STAGES["brevity"].load())
    await driver.step()
    (record,) = log.on("rl.rewards.v1")
    reward = codec.decode(record.value, Reward)
    print(reward.component, reward.value, record.key, len(STAGE_POINTS["brevity"]))
asyncio.run(main())
"""


def test_the_stage_folds(run):
    """A conversation of one call has half the reward, and each point of a transaction may kill it."""
    assert "brevity 0.5 e1 4\n" == run("-c", FOLDS)


SHOWS = """
from odradek.infra.bus import Record
from odradek.infra.runtime.imports import import_entry
from odradek.schemas.events import Turn, Usage
from odradek.streams.views import VIEWS
from odradek.streams.views.view import stage_of
view = import_entry(VIEWS["speed"])()
fold = stage_of("view-speed", view).fold()
for at, tokens in ((0.0, 600), (100.0, 30), (110.0, 90)):
    turn = Turn(episode_id="e", turn_id=f"w-{tokens}", writer="w", seq=0, agent="a",
                usage=Usage(completion_tokens=tokens))
    assert () == fold.feed(Record("rl.turns.v1", 0, 0, "e", b"", (), at), turn)
print(view.snapshot(115.0))
"""


def test_the_view_counts_its_window(run):
    """What left it is forgotten, and nothing is written."""
    assert "{'a': 2.0}\n" == run("-c", SHOWS)


ANSWERS = """
import asyncio, json
from odradek.infra.bus import MemoryAppender
from odradek.proxy.app import Proxy
from odradek.proxy.openapi import document
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from aiohttp import web
from tests.support.engines.stub_engine import StubEngine, listening
from tests.support.proxy.proxy_bench import KEY, Bench
class ShoutEngine(StubEngine):
    def app(self):
        app = super().app()
        app.router.add_get("/whoami", self.whoami)
        app.router.add_post("/shout", self.shout)
        self.shouted = 0
        return app
    async def whoami(self, request):
        return web.Response(body=b"shout")
    async def shout(self, request):
        self.shouted += 1
        return await self.chat(request)
async def main():
    engine, log = ShoutEngine(), MemoryAppender()
    async with listening(engine.app()) as url:
        settings = ProxySettings(port=0, engine_url=url, engine_wait_s=0.0)
        proxy = Proxy(settings, log, keys=[KEY], proves=True)
        async with serving(proxy, shutdown_s=0.1) as address:
            bench = Bench(engine, log, proxy, address)
            status, _, body = await bench.post(
                "/e/e1/v1/say", {"model": "policy", "say": "hi"}, token=bench.token()
            )
            (turn,) = bench.turns()
        print(status, list(json.loads(body)), turn.dialect, engine.shouted > 0)
        print("/e/{episode}/v1/say" in document(proxy.application(), version="1")["paths"])
asyncio.run(main())
"""


def test_the_dialect_answers_and_the_engine_is_asked(run):
    """In its own shape; the turn is recorded under its name, and went to the engine's own path."""
    assert "200 ['said'] say True\nTrue\n" == run("-c", ANSWERS)


JUDGES = """
import asyncio
from odradek.schemas.events import Conversation, ConversationTurn
from odradek.schemas import codec
from odradek.streams.judges.named import NamedJudge
async def main():
    judge = NamedJudge("rewards:brief", 1)
    await judge.start()
    turn = ConversationTurn(turn_id="t", reply={"content": "yo"})
    said = Conversation(episode_id="e1", task_id="t1", agent="a", sample=0, turns=(turn,))
    print(await judge.judge(said, codec.encode(said)))
    await judge.aclose()
asyncio.run(main())
"""


def test_the_reward_judges(run):
    """As `odradek reward rewards:brief` asks it."""
    assert "1.0\n" == run("-c", JUDGES)


TRAINS = """
import torch
from odradek.trainer.settings import TrainerSettings
from odradek.trainer.step.losses import LossInputs, LossOptions, StepTotals, policy_loss
settings = TrainerSettings(loss="reinforce")
logits = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.SGD([logits], lr=1.0)
taken = torch.log_softmax(logits, 0)[torch.tensor([0, 1])]
terms = LossInputs(taken, taken.detach(), torch.tensor([1.0, -1.0]), torch.tensor([0, 1]), 2)
policy_loss(settings.loss, terms, StepTotals(2, 2), LossOptions()).backward()
optimizer.step()
print(logits.tolist())
"""


@pytest.mark.torch
def test_the_loss_trains_a_step(run):
    """What was good is more likely after it: the gradient of -(log p0 - log p1) / 2."""
    assert "[0.5, -0.5]\n" == run("-c", TRAINS)
