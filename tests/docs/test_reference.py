"""Settings and verbs are documented, and the docs name none that is not there."""

import re
from pathlib import Path

import pytest

from odradek.infra.cli import VERBS

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_what_the_command_prints():
    """`odradek config --reference > docs/settings.md` brings it up to date."""
    from odradek.infra.project.reference import page

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
    assert set() == named - set(VERBS)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    """Relative links of a page name files of the repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [] == [link for link in links if not (page.parent / link).exists()]
