"""Check a built site: no dead link or anchor, and nothing fetched from elsewhere: `check.py FOLDER`."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "source": "srcset", "iframe": "src", "object": "data"}
"""Elements that load something, and by which attribute."""
STYLED = re.compile(r"(?:@import\s+|url\()[\"']?(?!url\()([^\"')\s]+)")
"""What a style sheet loads."""


class Page(HTMLParser):
    """Ids, links and fetched files of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element names."""
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in {"canonical"}:
            self.fetched.append(given.get("href", ""))
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.append(given[FETCHED[tag]])


def faults(folder: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    pages = {path: _read(path) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        for target in [*page.links, *page.fetched]:
            if reason := _dead(path, target, pages):
                found.append(f"{name}: {target}: {reason}")
        found += [
            f"{name}: fetches {target}"
            for target in page.fetched
            if urlsplit(target).netloc and not target.startswith("data:")
        ]
    for style in sorted(folder.rglob("*.css")):
        for target in STYLED.findall(style.read_text(encoding="utf-8")):
            if urlsplit(target).netloc:
                found.append(f"{style.relative_to(folder)}: fetches {target}")
    return found


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _dead(path: Path, target: str, pages: dict[Path, Page]) -> str:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    other = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if not other.exists():
        return "no such file"
    page = pages.get(other)
    if parts.fragment and page is not None and unquote(parts.fragment) not in page.ids:
        return "no such anchor"
    return ""


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    print(*wrong[:50], sep="\n", file=sys.stderr)
    print(f"docs: {len(wrong)} faults" if wrong else "docs: no dead link, nothing from elsewhere")
    sys.exit(bool(wrong))
