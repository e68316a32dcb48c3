"""The site, without building it: its navigation, its links, and the docstrings that it renders."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def loaded(name: str) -> ModuleType:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / f"docs/site/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lay, docstrings, check = loaded("lay"), loaded("docstrings"), loaded("check")
PAGES = lay.sources()


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.strip().replace(" ", "-"))
    return found


def test_every_page_stands_in_the_sidebar_once():
    """In the order in which a newcomer reads; a page that no group names comes behind the others."""
    text = lay.tables_of_contents(PAGES)
    listed = [line for line in text.splitlines() if re.fullmatch(r"[a-z][a-z0-9-]*", line)]
    pages = {name.removesuffix(".md") for name in PAGES.values()} - {"index"}
    assert sorted({*pages, "api"}) == sorted(listed)


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_pages_and_their_headings(page):
    """A relative link names a file of the repository, and an anchor a heading of its page."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    dead = []
    for target, _, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(#?)([^)\s]*)\)", text):
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists():
            dead.append(target)
        elif anchor and anchor not in anchors(path.read_text()):
            dead.append(f"{target}#{anchor}")
    assert [] == dead


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("README.md", "[a](docs/design.md#six-ideas)", "[a](design.md#six-ideas)"),
        ("docs/design.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/figures.md", "[a](figures/)", f"[a]({lay.HOST}/tree/main/docs/figures)"),
        ("docs/figures.md", "[a](figures/x.json)", f"[a]({lay.HOST}/blob/main/docs/figures/x.json)"),
        ("README.md", "[a](https://a.example) [b](#c)", "[a](https://a.example) [b](#c)"),
        ("README.md", "```\n[a](docs/design.md)\n```", "```\n[a](docs/design.md)\n```"),
    ],
)  # fmt: skip
def test_links_follow_their_pages_to_the_site(page, text, expected):
    """Pages among each other, files of the repository at its host; code is left alone."""
    assert expected == lay.laid(text, page, PAGES)


def test_a_picture_follows_the_theme_that_the_reader_chose():
    """Two images, each for one theme of the site."""
    text = (
        '<picture><source media="(prefers-color-scheme: dark)" srcset="docs/pictures/a-dark.svg">\n'
        '<img alt="b" src="docs/pictures/a-light.svg" width="480"></picture>'
    )
    assert [
        "![b](pictures/a-light.svg){.only-light .drawing width=480px}",
        "![b](pictures/a-dark.svg){.only-dark .drawing width=480px}",
    ] == lay.laid(text, "README.md", PAGES).splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reads `a_b`, *all* of x_.", "Reads ``a_b``, \\*all\\* of x\\_."),
        ("A list:\n\n* one\n* two", "A list:\n\n* one\n* two"),
        ("Errors\n\nA\n└── B", "Errors\n\n::\n\n    A\n    └── B"),
        ("Do:\n\n```python\nx = 1\n\ny\n```", "Do:\n\n::\n\n    x = 1\n\n    y"),
        ("Args:\n    x: of `n`\n        words", "Args:\n    x: of ``n``\n        words"),
        ("The `MANY`th", "The ``MANY``\\ th"),
        ("See\n\n    a --> b", "See\n\n::\n\n        a --> b"),
    ],
)  # fmt: skip
def test_docstrings_become_what_sphinx_reads(text, expected):
    """Code, lists, drawings and sections stay what they are; signs with a meaning there do not."""
    lines = docstrings.as_rst(text.splitlines())
    assert expected == re.sub(r"[ \t]+$", "", "\n".join(lines).rstrip("\n"), flags=re.MULTILINE)


def test_the_check_of_a_built_site_finds_what_it_is_for(tmp_path):
    """Dead links, dead anchors, and what a page or a style sheet would fetch from elsewhere."""
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a><a href="b.html#gone">x</a><a href="c.html">x</a>'
        '<a href="https://example.org">x</a><script src="https://cdn.example/x.js"></script>'
        '<link rel="stylesheet" href="//fonts.example/x.css">'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    (tmp_path / "x.css").write_text("@import url('https://fonts.example/y.css');")
    assert [
        "a.html: b.html#gone: no such anchor",
        "a.html: c.html: no such file",
        "a.html: fetches https://cdn.example/x.js",
        "a.html: fetches //fonts.example/x.css",
        "x.css: fetches https://fonts.example/y.css",
    ] == check.faults(tmp_path)
