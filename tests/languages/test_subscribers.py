"""The docs' subscribers in other languages, as they stand on the page, against a real broker."""

import os
import re
import sys
from pathlib import Path

import pytest

from odradek.infra.app.local_kafka.jars import fetch_jars
from tests.support.agents.example_subscribers import PAGE, blocks, watched

PLACE = Path(__file__).parents[2] / ".languages"
"""What `scripts/prove subscribers` installs."""

WATCHERS = {
    "js": ("watch.mjs", [PLACE / "node_modules" / ".bin" / "node", "watch.mjs"]),
    "go": ("main.go", ["go", "run", "."]),
    "java": ("Watch.java", ["java", "Watch.java"]),
}


def test_each_language_of_the_page_is_run():
    """A block in a language that nobody runs would be a claim without proof."""
    written = set(re.findall(r"^```(\w+)$", PAGE.read_text(), re.MULTILINE))
    assert written == {"sh", "python"} | set(WATCHERS)


@pytest.mark.languages
@pytest.mark.parametrize("language", WATCHERS)
async def test_a_subscriber_in_another_language(bus, language, monkeypatch):
    """It prints each event once, in the order of its task, and none of an aborted transaction."""
    name, command = WATCHERS[language]
    folder = PLACE / "go" if language == "go" else PLACE
    (code,) = blocks(language)
    (folder / name).write_text(code, encoding="utf-8")
    monkeypatch.setenv("CLASSPATH", os.pathsep.join(map(str, fetch_jars())))
    await watched(bus, command, folder)


@pytest.mark.languages
async def test_a_subscriber_on_librdkafka(bus, tmp_path):
    """So does the one with confluent-kafka."""
    code = blocks("python")[-1]
    await watched(bus, [sys.executable, "-c", code], tmp_path)


@pytest.mark.broker
async def test_a_subscriber_on_aiokafka(bus, tmp_path):
    """So does the one with aiokafka; it needs nothing of ours."""
    code = blocks("python")[-2]
    assert "odradek." not in code
    await watched(bus, [sys.executable, "-c", code], tmp_path)
