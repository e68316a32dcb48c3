"""What `scripts/check` and tests/house count of the tree: folders, circles, names, sentences."""

import ast
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("schemas", "streams", "agents", "trainer", "proxy", "infra")
WIDEST = 12
"""Modules of a folder, its `__init__` not among them."""


def modules():
    """Every module's path, `__init__` included."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def widths():
    """How many modules each folder has."""
    return Counter(
        str(path.parent.relative_to(ROOT)) for path in modules() if path.name != "__init__.py"
    )


def graph():
    """Who imports whom, module by module, imports for annotations only among them."""
    found = grimp.build_graph("odradek", include_external_packages=False, cache_dir=None)
    return {name: set(found.find_modules_directly_imported_by(name)) for name in found.modules}


def folder_graph(imports):
    """The same from folder to folder; a folder and one within it count as no pair."""
    packages = {name.rpartition(".")[0] for name in imports}

    def folder(name):
        return name if name in packages else name.rpartition(".")[0]

    found = defaultdict(set)
    for name, others in imports.items():
        for other in others:
            one, two = folder(name), folder(other)
            if (
                one != two
                and not f"{one}.".startswith(f"{two}.")
                and not f"{two}.".startswith(f"{one}.")
            ):
                found[one].add(two)
    return found


def circles(arrows):
    """Groups of names of which each reaches every other one."""
    reach = {name: reached(name, arrows) for name in arrows}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in arrows
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def reached(name, arrows):
    """Every name to which a way leads from this one."""
    reach, ahead = set(), [name]
    while ahead:
        fresh = set(arrows.get(ahead.pop(), ())) - reach
        reach |= fresh
        ahead += fresh
    return reach


def public_classes():
    """Where each public class stands."""
    found = defaultdict(list)
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def words():
    """The words of docs/glossary.md that files may be named with."""
    text = (ROOT / "docs/glossary.md").read_text()
    terms, field = text.split("## Words of the field")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", terms, re.MULTILINE)
    found = {word for term, _ in rows for word in re.split(r"[ -]", term)}
    for _, listed in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", field, re.MULTILINE):
        found |= set(listed.split())
    return found


def unlisted():
    """Files whose name has a word that the glossary lacks."""
    known = words()
    return {
        str(path.relative_to(ROOT)): sorted(set(path.stem.split("_")) - known)
        for path in modules()
        if path.stem != "__init__"
        and path.stem != "__main__"
        and not set(path.stem.split("_")) <= known
    }


def sentences(text):
    """The lengths, in words, of the sentences of a page; tables, code and headings are none."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "word", text)
    prose = [
        line
        for line in text.splitlines()
        if not line.lstrip().startswith(("|", "#", "    ", "<", "!"))
    ]
    joined = re.sub(r"\n\s*(?=\n|[*-] |\d+\. )", ".\n", "\n".join(prose))
    split = re.split(r"(?<=[.!?])\s+", joined)
    return [
        len(found) for one in split if len(found := re.findall(r"[A-Za-z0-9][\w'’-]*", one)) > 2
    ]


def pages():
    """What people read: README and docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def docstrings():
    """All docstrings, as one text."""
    found = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.append(ast.get_docstring(node) or "")
    return "\n\n".join(found)


def main():
    """Print the figures; exit with 1 where a rule is broken."""
    from statistics import median

    imports = graph()
    wide = {name: n for name, n in widths().items() if n > WIDEST}
    twice = {name: places for name, places in public_classes().items() if len(places) > 1}
    rounds = [*circles(imports), *circles(folder_graph(imports))]
    strange = unlisted()
    lengths = [n for page in pages() for n in sentences(page.read_text())]
    print(
        f"folders: {len(widths())}, the widest has {max(widths().values())} modules (at most {WIDEST})"
    )
    print(f"circles of imports: {len(rounds)}; public classes of one name: {len(twice)}")
    print(
        f"words a sentence, median: {median(lengths)} in docs, "
        f"{median(sentences(docstrings()))} in docstrings"
    )
    for broken in (wide, twice, rounds, strange):
        if broken:
            print(f"broken: {broken}")
    return int(bool(wide or twice or rounds or strange))


if __name__ == "__main__":
    sys.exit(main())
