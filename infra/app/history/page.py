"""Sections as one HTML page that needs nothing beside itself."""

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from odradek.infra.app.history.sections import Facts, Grid, Heading, Note, Section, ShownTokens
from odradek.infra.app.history.views import TokensView

PLACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/\d{1,6}/\d{1,18}")
STYLE: Final = """\
:root { color-scheme: light dark; --trained: #0a7d33; --sampled: #9a6700; --line: #8884 }
@media (prefers-color-scheme: dark) { :root { --trained: #4cd37b; --sampled: #e3b341 } }
body { font: 14px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-top: 1px solid var(--line) }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { padding: .1rem .8rem .1rem 0; text-align: left; vertical-align: top }
td:first-child, th { opacity: .75; font-weight: normal }
a { color: inherit }
p { margin: 1rem 0 .2rem }
.wrong { color: #cf222e }
pre { font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 1rem;
  border-left: 3px solid var(--line); padding-left: .6rem }
i { font-style: normal; opacity: .65 }
.t { color: var(--trained); font-weight: 600; opacity: 1 }
.s { color: var(--sampled); opacity: 1 }
"""


def page_of(sections: Iterable[Section], title: str) -> str:
    """A page: each place leads to where it is shown, and each token says its numbers.

    What agents and models wrote is escaped; the page has no script and loads nothing.
    """
    listed = list(sections)
    here = {section.place for section in listed if isinstance(section, Heading) and section.place}
    here |= {name for one in listed if isinstance(one, Grid) for name in _names(one) if name}
    body = "\n".join(part for section in listed for part in _drawn(section, here))
    legend = (
        '<p><i class="t">trained on</i> · <i class="s">sampled, not trained on</i> · '
        "<i>context</i></p>"
    )
    return (
        "<!doctype html>\n"
        f'<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>\n{STYLE}</style>\n{legend}\n{body}\n</html>\n"
    )


def _names(grid: Grid) -> list[str]:
    """For each row of a table of samples the place that it shows, else ""."""
    of_samples = grid.headings[:1] == ("sample",)
    return [row[3] if of_samples and PLACE.fullmatch(row[3]) else "" for row in grid.rows]


def _drawn(section: Section, here: set[str]) -> Iterator[str]:
    match section:
        case Heading(text, place):
            yield f'<h2 id="{escape(place)}">{escape(text)}</h2>'
        case Facts(pairs):
            yield _table(pairs, here, "", [""] * len(pairs))
        case Grid(headings, rows, title):
            head = "".join(f"<th>{escape(name)}</th>" for name in headings)
            if title:
                yield f"<p>{escape(title)}</p>"
            yield _table(rows, here, f"<tr>{head}</tr>", _names(section))
        case Note(text, wrong):
            yield f"<p{' class=wrong' if wrong else ''}>{_linked(text, here)}</p>"
        case ShownTokens(tokens):
            yield f"<pre>{''.join(_tokens(tokens))}</pre>"


def _table(rows: Iterable[tuple[str, ...]], here: set[str], head: str, names: Iterable[str]) -> str:
    lines = []
    for row, name in zip(rows, names, strict=True):
        cells = "".join(f"<td>{_linked(cell, here)}</td>" for cell in row)
        lines.append(f'<tr id="{escape(name)}">{cells}</tr>' if name else f"<tr>{cells}</tr>")
    return f"<table>{head}{''.join(lines)}</table>"


def _linked(text: str, here: set[str]) -> str:
    """Text with its places: links where the page shows them, else with the verb that reads them."""

    def link(match: re.Match[str]) -> str:
        place = match[0]
        topic, partition, offset = place.rsplit("/", 2)
        if place in here:
            return f'<a href="#{place}">{place}</a>'
        verb = f"odradek tail {topic} --since {offset}, partition {partition}"
        return f'<code title="{verb}">{place}</code>'

    # Places have no letter that HTML would read otherwise, so they survive being escaped.
    return PLACE.sub(link, escape(text))


def _tokens(tokens: TokensView) -> Iterator[str]:
    words = tokens.texts or tuple(f"{token} " for token in tokens.ids)
    for n, word in enumerate(words):
        facts = [f"{n}: id {tokens.ids[n]}"]
        for name, values in (
            ("log p", tokens.logprobs),
            ("version", tokens.versions),
            ("temperature", tokens.temperatures),
            ("advantage", tokens.advantages),
        ):
            if tokens.sampled[n] and values[n] is not None:
                facts.append(f"{name} {values[n]:.6g}")
        kind = ' class="t"' if tokens.trained[n] else ' class="s"' if tokens.sampled[n] else ""
        yield f'<i{kind} title="{", ".join(facts)}">{escape(word)}</i>'
