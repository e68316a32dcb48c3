"""`odradek introspect` says of an agent on the log what its records say."""

import asyncio
import json
from uuid import uuid4

import pytest
from click.testing import CliRunner

from odradek.infra.app.cli.judge import introspect
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics
from odradek.schemas import codec
from odradek.schemas.events import Batch, Pointer, Reward
from odradek.schemas.topics import BATCHES, EPISODES, REVISIONS, TURNS
from tests.replay.test_introspection import clean_run, failing
from tests.support.streams.tool_agent import ToolAgentEpisode
from tests.support.trainer.trained_log import append


async def written(bus):
    """Clean episodes and one that goes wrong, on the log; the last two are a batch."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    played = clean_run(3, 4)
    wrong = ToolAgentEpisode(4)
    failing(wrong)
    other = ToolAgentEpisode(5, agent="other")
    other.turn("hello")
    pointers = []
    for one in (*played, wrong, other):
        head, _, placed = one.end()
        for event in placed:
            await append(appender, TURNS.name, head.episode_id, event.event)
        at = await append(appender, EPISODES.name, head.task_id, head)
        pointers.append(
            Pointer(
                episode_id=head.episode_id, sample=head.sample, topic=EPISODES.name,
                partition=at.partition, offset=at.offset, digest=codec.digest(codec.encode(head)),
                reward=head.reward,
            )
        )  # fmt: skip
    batch = Batch(task_id="t2", agent="coder", group_size=2, episodes=tuple(pointers[3:5]))
    await append(appender, BATCHES.name, "t2", batch)
    late = Reward(episode_id="e4", component="game", value=7.0, source="person/ada")
    await append(appender, REVISIONS.name, "e4", late)
    await appender.aclose()
    return pointers


@pytest.fixture
def told(broker, monkeypatch):
    """Where they stand."""
    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.")
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)
    return asyncio.run(written(bus))


def call(*words):
    return CliRunner().invoke(introspect.command, words, catch_exceptions=True)


def read(*words):
    answer = call(*words, "--json")
    assert 0 == answer.exit_code, answer.output
    return json.loads(answer.stdout)


def test_the_verb_reports_what_is_on_the_log(told, tmp_path):
    """Episodes with and without a batch, late rewards, evidence by place, and two sides."""
    report = read("coder")["report"]
    assert (5, {"completed": 5}) == (report["episodes"], report["outcomes"])
    assert 7.0 == report["reward"]["most"]
    (found,) = report["suggestions"]
    place = f"{EPISODES.name}/{told[4].partition}/{told[4].offset}"
    assert ("repeated_failing_call", "fix", place) == (
        found["kind"], found["subject"], found["evidence"][0]["at"]
    )  # fmt: skip
    topics = {each.rsplit("/", 2)[0] for each in found["evidence"][0]["places"]}
    assert {TURNS.name} == topics

    in_batch = read("coder", "--batches", "0:1")["report"]
    assert (2, 1.0) == (in_batch["episodes"], in_batch["reward"]["most"])
    both = read("coder", "--reward", "7", "--against", "reward=0:1")
    assert (1, 4) == (both["report"]["episodes"], both["against"]["episodes"])
    assert both["report"]["suggestions"][0]["fresh"]
    assert {"name": "episodes", "value": 1, "other": 4, "unit": ""} == both["figures"][0]

    shown = call("coder", "--against", "reward=0:1")
    assert 0 == shown.exit_code
    assert place in shown.stdout
    assert "fix is called again just as it failed before" in " ".join(shown.stdout.split())
    page = tmp_path / "coder.html"
    assert 0 == call("coder", "--html", str(page)).exit_code
    assert place in page.read_text()

    nobody = call("nobody")
    assert "no episode of 'nobody' passes the filters; those that do are of coder, other" in str(
        nobody.exception
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--against", "colour=red"), "FILTER is one of batches, steps"),
        (("--against", "versions"), "write FILTER=VALUE"),
        (("--against", "versions=1", "--against", "versions=2"), "given twice"),
        (("--agent", "b"), "No such option"),
        (("--success", "nan"), "needs a number"),
    ],
)
def test_a_mistake_is_one_line(words, line):
    """That says what to write."""
    answer = call("coder", *words)
    assert 2 == answer.exit_code
    assert line in answer.output


def test_a_time_of_the_other_side_replaces_both_times():
    """And what it does not name is as on this side."""
    words = {"since": "1h", "until": "", "versions": "3", "tasks": ("a",), "steps": ""}
    other = introspect.replaced(words, ("until=1h", "task=b", "task=c"))
    assert {**words, "since": "", "until": "1h", "tasks": ("b", "c")} == other
