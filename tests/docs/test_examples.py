"""The Python examples of the docs are run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from odradek.infra.bus import ensure_topics, rows
from odradek.infra.client import publish_tasks, subscribe
from odradek.schemas import Task
from tests.support.agents.example_judges import judged

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[str]:
    """The code of a page's ```python blocks."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


async def run(code: str, bus, *arguments: str) -> str:
    """The output of a program that knows the bus by the environment, as users' programs do."""
    environment = {
        **os.environ,
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert "" == done.stderr
    return done.stdout


@pytest.mark.broker
async def test_bring_your_own_kafka(bus):
    """The page's programs publish and read what the page says."""
    await ensure_topics(bus, rows(["hilo"]))
    publish, judge, read, read_plainly, _ = examples("bring-your-own-kafka.md")
    await run(publish, bus)
    (task,) = [
        task async for task in subscribe("rl.tasks.v1", since="beginning", follow=False, bus=bus)
    ]
    assert ("hilo", 8, {"game": 1.0}) == (task.agent, task.group_size, task.rewards)
    assert task.task_id == (await run(read, bus)).strip()
    assert task.task_id == (await run(read_plainly, bus)).strip()
    await publish_tasks([Task(task_id="other", agent="other")], bus)
    assert "other" not in await run(read, bus)
    await run(judge, bus, "episode-1")
    (reward,) = [
        event
        async for event in subscribe("rl.rewards.v1", since="beginning", follow=False, bus=bus)
    ]
    assert ("episode-1", "taste", 0.5) == (reward.episode_id, reward.component, reward.value)


@pytest.mark.broker
async def test_a_judge_on_librdkafka(bus, tmp_path):
    """The page's judge with confluent-kafka reads what streams write, and judges it."""
    *_, code = examples("bring-your-own-kafka.md")
    (tmp_path / "judge.py").write_text(code)
    await judged(bus, "python", [sys.executable, "judge.py"], tmp_path)
