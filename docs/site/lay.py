"""Lay the pages of the repository out as the source of a site: `lay.py FOLDER`.

README is the start page; docs/ and the root's other pages stand beside it. Links follow their
pages, a link to another file of the repository goes to its host, and a picture in two themes follows
the page's theme. The text is otherwise as it is.
"""

import ast
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath

ROOT = Path(__file__).resolve().parents[2]
HOST = "https://github.com/odradek-rl/odradek"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
"""Pages at the root of the repository: (path there, path on the site)."""
GROUPS = {
    "Start": ("quickstart", "write-an-agent", "write-a-reward"),
    "Run": (
        "a2a",
        "a2a-kafka-binding",
        "subscribe",
        "replay",
        "archive",
        "bring-your-own-kafka",
        "train-on-a-gpu",
        "learning",
        "watch-a-run",
        "introspect",
        "scale-the-proxy",
        "security",
    ),  # fmt: skip
    "Look up": (
        "settings",
        "commands",
        "topics",
        "engines",
        "metrics",
        "counters",
        "glossary",
        "api",
    ),
    "Understand": ("design", "one-step", "guarantees", "proofs", "figures"),
    "Change": ("extend", "contributing", "changelog", "security-policy", "code-of-conduct"),
}
"""The sidebar: (title, pages). A page that stands in none comes at the end of `Understand`."""
FOLDERS = ("schemas", "proxy", "agents", "streams", "trainer", "infra")
"""Of the package, in the order of the README's tree."""
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s]+)(?P<after>\))")
PICTURE = re.compile(
    r"<picture>\s*<source[^>]*srcset=\"(?P<dark>[^\"]+)\"[^>]*>\s*"
    r"<img alt=\"(?P<alt>[^\"]*)\" src=\"(?P<light>[^\"]+)\" width=\"(?P<width>\d+)\">\s*</picture>"
)


def sources(root: Path = ROOT) -> dict[str, str]:
    """Every page: (path in the repository, path on the site)."""
    docs = {f"docs/{path.name}": path.name for path in sorted((root / "docs").glob("*.md"))}
    return {**PAGES, **docs}


def laid(text: str, page: str, pages: dict[str, str]) -> str:
    """A page's text with its links and pictures as the site has them.

    Args:
        text: Markdown.
        page: Its path in the repository.
        pages: See `sources`.
    """
    folder = PurePosixPath(page).parent

    def link(match: re.Match[str]) -> str:
        target, hash_, anchor = match["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = normpath(str(folder / target))
        if path in pages:
            return f"{match['before']}{pages[path]}{hash_}{anchor}{match['after']}"
        kind = "tree" if target.endswith("/") else "blob"
        return f"{match['before']}{HOST}/{kind}/main/{path}{match['after']}"

    def picture(match: re.Match[str]) -> str:
        return "\n".join(
            f"![{match['alt']}](pictures/{PurePosixPath(match[theme]).name})"
            f"{{.only-{theme} .drawing width={match['width']}px}}"
            for theme in ("light", "dark")
        )

    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        part if part.startswith("```") else PICTURE.sub(picture, LINK.sub(link, part))
        for part in parts
    )


def tables_of_contents(pages: dict[str, str]) -> str:
    """What makes the sidebar, for the end of the start page."""
    listed = {name for names in GROUPS.values() for name in names}
    new = sorted({path.removesuffix(".md") for path in pages.values()} - listed - {"index"})
    groups = dict(GROUPS)
    groups["Understand"] = (*groups["Understand"], *new)
    return "\n".join(
        "```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(names) + "\n```\n"
        for title, names in groups.items()
    )


def reference() -> str:
    """The page from which the API reference starts: each folder with its first paragraph."""
    rows = []
    for name in FOLDERS:
        about = ast.get_docstring(ast.parse((ROOT / name / "__init__.py").read_text())) or ""
        sentence = " ".join(about.split("\n\n")[0].split())
        rows.append(f"* [`odradek.{name}`](autoapi/odradek/{name}/index.rst): {sentence}")
    listed = "\n".join(f"autoapi/odradek/{name}/index" for name in FOLDERS)
    return (
        "# API reference\n\nPublic names, folder by folder, from the docstrings. "
        "Start with the [glossary](glossary.md).\n\n"
        + "\n".join(rows)
        + "\n\n```{toctree}\n:hidden:\n\n" + listed + "\n```\n"
    )  # fmt: skip


def lay(folder: Path) -> None:
    """Write the site's source into a folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    pages = sources()
    for path, name in pages.items():
        text = laid((ROOT / path).read_text(encoding="utf-8"), path, pages)
        if name == "index.md":
            text += "\n" + tables_of_contents(pages)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "api.md").write_text(reference(), encoding="utf-8")
    for drawing in (ROOT / "docs" / "pictures").glob("*.svg"):
        shutil.copyfile(drawing, folder / "pictures" / drawing.name)


if __name__ == "__main__":
    lay(Path(sys.argv[1]))
