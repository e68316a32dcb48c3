"""Docstrings, which are plain text with Markdown's code, as reStructuredText. Pure."""

import re
from collections.abc import Iterator

DRAWN = re.compile(r"[│├└┌─▶]|-->")
"""What only drawings hold: trees of errors, tables of states."""
FENCE = "```"
KEPT = "\b"
"""What click takes as: do not wrap the lines below."""
CODE = re.compile(r"`([^`]+)`(\w?)")
SPECIAL = re.compile(r"(?<!^)(?<!\n)[*|\\]|(?<=\w)_(?=\W|$)|(?<=\W)_(?=\w)")
"""Characters that mean something there: stars but not those of a list, bars, names' last dashes."""


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, drawings and fenced code as literal blocks, the rest escaped."""
    found: list[str] = []
    section = False
    for block in _blocks(lines):
        indented = all(line.startswith("    ") for line in block)
        if block[0].strip() == KEPT:
            found += _literal(block[1:])
        elif block[0].strip().startswith(FENCE):
            found += _literal(block[1:-1])
        elif any(map(DRAWN.search, block)) or (indented and not section):
            found += _literal(block)
        else:
            found += _escaped("\n".join(block)).splitlines()
            section = bool(re.match(r"[A-Z]\w+:$", block[0])) or (section and indented)
        found.append("")
    return found


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between empty ones; a fence keeps its empty lines."""
    block: list[str] = []
    fenced = False
    for line in lines:
        fence = line.strip().startswith(FENCE)
        if block and not fenced and (fence or not line.strip()):
            yield block
            block = []
        if line.strip() or fenced:
            block.append(line.rstrip())
        if fence and fenced:
            yield block
            block = []
        fenced ^= fence
    if block:
        yield block


def _literal(block: list[str]) -> list[str]:
    return ["::", "", *(f"    {line}" for line in block)]


def _escaped(text: str) -> str:
    parts, at = [], 0
    for code in CODE.finditer(text):
        parts.append(SPECIAL.sub(r"\\\g<0>", text[at : code.start()]))
        words, behind = " ".join(code[1].split("\n")), code[2]
        words = re.sub(r" {2,}", " ", words)
        parts.append(f"``{words}``" + (rf"\ {behind}" if behind else ""))
        at = code.end()
    return "".join([*parts, SPECIAL.sub(r"\\\g<0>", text[at:])])
