"""What agents say, and what opens doors, stands in no log, span, counter or dead letter's reason (S8).

A dead letter's *value* holds the original bytes: that is what it is for.
"""

import json
import logging
from types import SimpleNamespace

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from odradek.agents.binding import requests
from odradek.agents.dispatch.requests import check as check_order
from odradek.agents.errors import RequestRefused
from odradek.infra.bus import MemoryAppender, Record, passed_over
from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.metrics import signals
from odradek.infra.runtime.metrics.counters import _board as board
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Reward, Task, Turn
from odradek.schemas.topics import DLQ, EPISODES, REWARDS, TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.errors import RewardFailed
from odradek.streams.judges.judge import AsyncJudge
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.stages.intake import intake
from tests.support.schemas.event_samples import SAMPLES

CANARY = "canary-7f3a9d"


@pytest.fixture
def told(caplog, monkeypatch):
    """Everything that leaves a process besides its records: read at the end."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_state", {"on": True})
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="odradek")

    def read() -> str:
        metrics.flush()
        spans = "".join(span.to_json() for span in exporter.get_finished_spans())
        logs = caplog.text + "".join(str(record.args) for record in caplog.records)
        trust = {name: one.sums for name, one in board.tallies.items()}
        assert spans, "spans were recorded"
        return spans + logs + str(trust) + str(signals._sums)

    return read


def broken(event) -> list[bytes]:
    """An event's bytes, wrong in every way, with the canary wherever content can stand."""
    plain = json.loads(codec.encode(event))
    found = [
        f'{{"type":"{CANARY}"}}'.encode(),
        f"{CANARY}".encode(),
        f'{{"{CANARY}": "{CANARY}'.encode(),
        f'"{CANARY}\\ud800"'.encode(),
        f'{{"{CANARY}":'.encode() * 100,
        f'"{CANARY}'.encode() + b'\xff"',
    ]
    for name in plain:
        for wrong in (CANARY, [CANARY], {CANARY: CANARY}, {"ids": CANARY}, -1):
            found.append(json.dumps({**plain, name: wrong}).encode())
    return found


HEADERS = (
    ("authorization", f"Bearer {CANARY}".encode()),
    ("Cookie", CANARY.encode()),
    ("dlq-attempts", CANARY.encode()),
    ("dlq-reason", CANARY.encode()),
)
STAGES = {TURNS: ASSEMBLE, EPISODES: GROUP, REWARDS: intake({"game": ["nobody"]})}
EVENTS = {
    TURNS: ("episode_opened", "turn", "episode_sealed", "episode_aborted", "reward"),
    EPISODES: ("group_opened", "episode"),
    REWARDS: ("reward",),
}


@pytest.mark.parametrize("topic", STAGES, ids=lambda topic: topic.name)
async def test_no_dead_letter_says_what_it_holds(topic, told):
    """Not in its reason, its detail, or a header of ours; nor does a line, a span, a counter."""
    log = MemoryAppender(1)
    for name in EVENTS[topic]:
        for value in broken(SAMPLES[name]):
            await log.append(topic.name, key=f"k-{CANARY}", value=value, headers=HEADERS)
    with telemetry.span("test"):
        await MemoryDriver(log, STAGES[topic]).step()
    letters = log.on(DLQ.name)
    assert 20 < len(letters)
    headers = b"".join(value for one in letters for _, value in one.headers)
    assert CANARY.encode() not in headers
    assert CANARY not in told()


async def test_a_judge_whose_source_may_not_judge_is_not_quoted(told):
    """Source, component and explanation are the sender's words."""
    log = MemoryAppender(1)
    reward = Reward(episode_id="e", component="game", value=1.0, source=CANARY, explanation=CANARY)
    await log.append(REWARDS.name, key="e", value=codec.encode(reward))
    with telemetry.span("test"):
        await MemoryDriver(log, STAGES[REWARDS]).step()
    (letter,) = log.on(DLQ.name)
    assert CANARY.encode() not in b"".join(value for _, value in letter.headers)
    assert CANARY not in told()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_no_reader_quotes_what_it_passes_over(name, told):
    """Policies, steps, batches, conversations: whatever is read, errors name places only."""
    event = SAMPLES[name]
    with telemetry.span("test"):
        for value in broken(event):
            try:
                codec.decode(value, type(event))
            except InvalidRecord as error:
                assert CANARY not in str(error)
                passed_over(Record("rl.steps.v1", 0, 0, CANARY, value), error)
    assert CANARY not in told()


def test_no_request_that_is_refused_is_quoted():
    """Of an A2A request and of a task: what is wrong, never what was sent."""
    good = json.loads(
        requests.send_value(
            "m1", msgspec.Raw(b"{}"), requests.SampleAddress(task_id="t"), context_id="c"
        )
    )
    seen = 0
    for value in (
        *broken(SAMPLES["task"]),
        *(json.dumps({**good, name: CANARY}).encode() for name in good),
        json.dumps({"message": {**good["message"], "messageId": ["x", CANARY]}}).encode(),
        json.dumps({"message": {**good["message"], "role": CANARY}}).encode(),
        json.dumps({"id": [CANARY]}).encode(),
    ):
        record = Record("a2a.requests.x", 0, 0, "k", value)
        for read in (
            lambda one: requests.send(one).proto(),
            lambda one: requests.parse(one, "CancelTask"),
        ):
            try:
                read(record)
            except RequestRefused as error:
                seen += 1
                assert CANARY not in str(error)
    assert 20 < seen
    for name in ("a2a-operation", "a2a-version", "a2a-deadline", "a2a-reply-partition"):
        headers = {"a2a-operation": "SendMessage", "a2a-version": "1.0", name: CANARY}
        record = Record("r", 0, 0, "k", b"", tuple((k, v.encode()) for k, v in headers.items()))
        try:
            requests.called(record)
        except RequestRefused as error:
            assert CANARY not in str(error)
    with pytest.raises(RequestRefused) as caught:
        check_order(Task(task_id="t", agent="a", input=msgspec.Raw(f'"{CANARY}\\ud800'.encode())))
    assert CANARY not in str(caught.value)


async def test_a_reward_function_that_raises_is_told_by_type_and_place(told):
    """Its text may hold the conversation."""

    async def cruel(conversation):
        raise KeyError(CANARY)

    with telemetry.span("test"), pytest.raises(RewardFailed) as caught:
        await AsyncJudge(cruel).judge(SAMPLES["conversation"], b"")
    assert str(caught.value).startswith("KeyError at test_canaries.py:")
    assert CANARY not in told()


async def test_a_reward_of_an_agent_that_raises_is_not_quoted_by_the_host(told):
    """EpisodeSealed says what; the log says that, and of which run."""
    from odradek.agents.attempt.executor import EpisodeExecutor

    def cruel() -> float:
        raise ValueError(CANARY)

    executor = object.__new__(EpisodeExecutor)
    executor._training = True
    reward = SimpleNamespace(component=CANARY, value=cruel, explanation="")
    run = SimpleNamespace(episode_id="e1", rollout=SimpleNamespace(rewards=[reward]))
    with telemetry.span("test"):
        problems = await executor._publish_rewards(run)
    assert CANARY in problems[0], "it is told in the episode itself"
    text = told()
    assert "ValueError" in text
    assert CANARY not in text


def test_a_span_around_what_fails_holds_no_text_of_the_failure(told):
    """An exception's text may be an agent's words: its type is what a span tells."""
    with pytest.raises(ValueError, match=CANARY), telemetry.span("agent.run", episode_id="e1"):
        raise ValueError(CANARY)
    text = told()
    assert "ValueError" in text
    assert CANARY not in text


async def test_a_model_call_is_quoted_nowhere_but_in_its_turn(bench, told):
    """Prompt, tools, tool results, credentials, an unknown header, and an engine that fails."""
    body = {
        "model": "policy",
        "messages": [
            {"role": "user", "content": CANARY},
            {"role": "tool", "tool_call_id": "x", "content": f'{{"api_key": "{CANARY}"}}'},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": CANARY}}],
        "user": CANARY,
    }
    token = bench.token()
    headers = {"X-Secret": CANARY, "Cookie": CANARY}
    status, _, _ = await bench.post("/e/e1/v1/chat/completions", body, token=token, headers=headers)
    assert 200 == status
    for wrong in (
        json.dumps({**body, "messages": CANARY}).encode(),
        f'{{"{CANARY}": '.encode(),
        json.dumps({**body, "stream": CANARY}).encode(),
    ):
        status, _, _ = await bench.post("/e/e1/v1/chat/completions", wrong, token=token)
        assert 400 <= status < 500
    status, _, _ = await bench.post("/e/e1/v1/chat/completions", body, token=CANARY)
    assert 401 == status
    await bench.post(f"/{CANARY}", body, token=token)
    (turn, *_) = [one for one in bench.events() if isinstance(one, Turn)]
    assert CANARY.encode() in codec.encode(turn), "the turn itself is what was asked for"
    kept = b"".join(value for one in bench.log.records for _, value in one.headers)
    assert CANARY.encode() not in kept
    assert token.encode() not in kept + b"".join(one.value or b"" for one in bench.log.records)
    text = told()
    assert CANARY not in text
    assert token not in text


def test_this_page_sees_a_leak(told):
    """A test that would pass over a quoting log line proves nothing."""
    with telemetry.span("test", key=CANARY):
        logging.getLogger("odradek").warning("it said %s", CANARY)
    assert 2 <= told().count(CANARY)
