"""Tokens as a page draws them: the class by which each is coloured, and what it says. Pure."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, get_args

from odradek.infra.app.history.views import TokensView

Shade = Literal["mask", "logprob", "advantage", "version"]
"""What colours a token."""
SHADES: Final[tuple[Shade, ...]] = get_args(Shade)

PROBABLE: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Bounds of -log p, in nats, between classes p0 to p5."""
STRONG: Final = (0.5, 1.5)
"""Bounds of |advantage| between classes 1, 2 and 3."""
VERSIONS: Final = 6
"""Classes of versions; the seventh version has the first one's colour again."""
UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
    "\ufffe\uffff]"
)
"""Characters that show nothing, turn the text around them, or that UTF-8 does not have."""


class DrawnToken(NamedTuple):
    """A token on a page."""

    text: str
    kind: str
    """Its class."""
    hint: str
    """Its numbers."""


class LegendEntry(NamedTuple):
    """What a class of tokens means."""

    kind: str
    text: str


LEGENDS: Final[dict[Shade, tuple[LegendEntry, ...]]] = {
    "mask": (
        LegendEntry("t", "trained on"),
        LegendEntry("s", "sampled, not trained on"),
        LegendEntry("c", "context"),
    ),
    "logprob": (
        *(LegendEntry(f"p{n}", f"log p above -{bound:g}") for n, bound in enumerate(PROBABLE)),
        LegendEntry(f"p{len(PROBABLE)}", f"-{PROBABLE[-1]:g} and below"),
        LegendEntry("c", "not sampled"),
    ),
    "advantage": (
        LegendEntry("n3", f"below -{STRONG[1]:g}"),
        LegendEntry("n2", f"to -{STRONG[0]:g}"),
        LegendEntry("n1", "below 0"),
        LegendEntry("z", "0"),
        LegendEntry("q1", "above 0"),
        LegendEntry("q2", f"from {STRONG[0]:g}"),
        LegendEntry("q3", f"above {STRONG[1]:g}"),
        LegendEntry("c", "not trained on"),
    ),
    "version": (
        *(LegendEntry(f"v{n}", f"{n}, {n + VERSIONS}, …") for n in range(VERSIONS)),
        LegendEntry("c", "not sampled"),
    ),
}


def visible(text: str) -> str:
    r"""Text of which each character shows: others stand as \uXXXX. Line ends and tabs stay."""
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def drawn_tokens(
    tokens: TokensView, shade: Shade = "mask", *, start: int = 0, end: int | None = None
) -> Iterator[DrawnToken]:
    """Tokens [start, end) as they are drawn; ids where there is no tokenizer."""
    for n in range(start, len(tokens.ids) if end is None else min(end, len(tokens.ids))):
        word = tokens.texts[n] if tokens.texts else f"{tokens.ids[n]} "
        yield DrawnToken(visible(word), _kind(tokens, n, shade), _hint(tokens, n))


def _kind(tokens: TokensView, n: int, shade: Shade) -> str:
    match shade:
        case "mask":
            return "t" if tokens.trained[n] else "s" if tokens.sampled[n] else "c"
        case "logprob":
            value = tokens.logprobs[n]
            return "c" if value is None else f"p{bisect_left(PROBABLE, -value)}"
        case "advantage":
            return _strength(tokens.advantages[n])
        case "version":
            version = tokens.versions[n]
            return "c" if version is None else f"v{version % VERSIONS}"


def _strength(advantage: float | None) -> str:
    if advantage is None:
        return "c"
    if not advantage:
        return "z"
    return f"{'q' if advantage > 0 else 'n'}{1 + bisect_left(STRONG, abs(advantage))}"


def _hint(tokens: TokensView, n: int) -> str:
    facts = [f"{n}: id {tokens.ids[n]}"]
    for name, values in (
        ("log p", tokens.logprobs),
        ("version", tokens.versions),
        ("temperature", tokens.temperatures),
        ("advantage", tokens.advantages),
    ):
        value = values[n]
        if tokens.sampled[n] and value is not None:
            facts.append(f"{name} {value:.6g}")
    return ", ".join(facts)
