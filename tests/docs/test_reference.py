"""Settings and verbs are documented, and the docs name none that is not there."""

import re
from pathlib import Path

import click
import pytest

from odradek.infra.app.cli import VERBS, main

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_what_the_command_prints():
    """`odradek config --reference > docs/settings.md` brings it up to date."""
    from odradek.infra.app.project.reference import page

    assert page() == (ROOT / "docs" / "settings.md").read_text()


def test_every_setting_has_a_meaning():
    """A knob that cannot be explained in a line should not exist."""
    text = (ROOT / "docs" / "settings.md").read_text()
    assert [] == [
        line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")
    ]


def pages() -> list[Path]:
    """README and docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_verb_stands_in_the_docs():
    """Whoever reads the docs learns of each verb."""
    text = "\n".join(page.read_text() for page in pages())
    assert [] == [verb for verb in VERBS if f"odradek {verb}" not in text]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_docs_name_no_verb_that_is_not_there(page):
    """A command in the docs exists."""
    named = set(re.findall(r"`odradek ([a-z]+)\b", page.read_text()))
    added = {"brevity", "hello"} if page.name == "extend.md" else set()  # by the page itself
    assert added == named - set(VERBS)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    """Relative links of a page name files of the repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [] == [link for link in links if not (page.parent / link).exists()]


def commands(text: str) -> list[str]:
    """Every `odradek` command line of a page, in blocks and within sentences."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&|\|", block)]
    lines += re.findall(r"`([^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    found = [
        re.search(r"(?:^|[\s/(\"])odradek ([a-z].*)", line.partition(" #")[0]) for line in lines
    ]
    return [match[1] for match in found if match]


def unknown_options(line: str) -> list[str]:
    """Options of a command line that its verb does not have."""
    words = line.split()
    group, ctx = main, click.Context(main)
    options: set[str] = set()
    while words and isinstance(group, click.Group) and words[0] in group.list_commands(ctx):
        group = group.get_command(ctx, words.pop(0))
        options |= {opt for param in group.params for opt in (*param.opts, *param.secondary_opts)}
    if "--" in words:
        words = words[: words.index("--")]
    given = {word.partition("=")[0].strip(")\"',;.]") for word in words if word.startswith("--")}
    return sorted(given - options - {"--help"})


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_docs_give_no_option_that_is_not_there(page):
    """A command line in the docs is one that its verb takes."""
    wrong = {line: bad for line in commands(page.read_text()) if (bad := unknown_options(line))}
    assert {} == wrong


def test_an_option_that_is_not_there_is_found():
    """In a block, behind a pipe, within a sentence."""
    page = "Say `odradek up --no-such`.\n```sh\nx | .venv/bin/odradek dlq list --nor-this  # odradek -\n```"
    assert [["--nor-this"], ["--no-such"]] == [unknown_options(line) for line in commands(page)]
