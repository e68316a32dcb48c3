"""The docs' judges in other languages, as they stand on the page, against a real broker."""

import os
import re
from pathlib import Path

import pytest

from odradek.infra.app.local_kafka.jars import fetch_jars
from tests.support.agents.example_judges import PAGE, blocks, judged

PLACE = Path(__file__).parents[2] / ".languages"
"""What `scripts/prove examples` installs."""

JUDGES = {
    "js": ("judge.mjs", [PLACE / "node_modules" / ".bin" / "node", "judge.mjs"]),
    "go": ("main.go", ["go", "run", "."]),
    "java": ("Judge.java", ["java", "Judge.java"]),
}
READ_ELSEWHERE = {"bash", "python", "sh"}


def test_each_language_of_the_page_is_run():
    """A block in a language that nobody runs would be a claim without proof."""
    written = set(re.findall(r"^```(\w+)$", PAGE.read_text(), re.MULTILINE))
    assert written == READ_ELSEWHERE | set(JUDGES)


@pytest.mark.languages
@pytest.mark.parametrize("language", JUDGES)
async def test_a_judge_in_another_language(bus, language, monkeypatch):
    """It reads what streams write, and its verdicts meet their episodes' stories."""
    name, command = JUDGES[language]
    folder = PLACE / "go" if language == "go" else PLACE
    (code,) = blocks(language)
    (folder / name).write_text(code, encoding="utf-8")
    monkeypatch.setenv("CLASSPATH", os.pathsep.join(map(str, fetch_jars())))
    await judged(bus, language, command, folder)
