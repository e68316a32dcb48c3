"""Which fields of a call an engine's refusal names, and what to write in their place: pure.

Engines name them in many ways: in a place of their own (`param`, `loc`), as the keys of an object,
in a sentence. Many also list the fields that they do take, or quote the request. A field that was
left out by mistake would be sampled with the engine's default and nobody would know, so only what
a refusal says is wrong is taken out of it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.wire.body import UNREADABLE

NAMES: Final = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z_][A-Za-z0-9_]*(?![A-Za-z0-9_-])")
PLACES: Final = frozenset({
    "additionalproperty", "argument", "field", "fields", "instancepath", "keys", "loc", "location",
    "param", "parameter", "parameters", "params", "path", "pointer", "property", "propertyname",
})  # fmt: skip
"""Keys under which an error says where it is, without their underscores."""
LISTING: Final = re.compile(
    r"accept|allow|available|context|ctx|didyoumean|example|expect|hint|input|known|payload|"
    r"permit|property|properties|request|schema|suggest|support|valid"
)
"""Keys under which it lists what would be right, or repeats the request."""
WRONG: Final = re.compile(
    r"unexpected|unknown|unrecogni|unsupported|invalid|not|disallow|validation"
)
LOC: Final = re.compile(r"""['"]loc['"]\s*:\s*[(\[]([^)\]]*)[)\]]""")
"""A place inside a text: a list of pydantic's, printed."""
QUOTED: Final = re.compile(
    r"""['"](\w+)['"]\s*:\s*(?:-?[0-9.]+|(?i:true|false|null|none))(?=\s*[,}])"""
)
"""A field and its value, as a quoted request has them."""
WORDS: Final = re.compile(
    r"""(?P<end>[.!?](?=\s))
    |(?P<taken>\b(?:is|are|may\s+be|can\s+be)\s+(?:all\s+|the\s+)?
        (?:accepted|allowed|known|permitted|recogni[sz]ed|supported|used|valid)\b(?!\s*:))
    |(?P<right>\bnot\s+(?:among|in|(?:one|any|part)\s+of)\b)
    |(?P<wrong>
        (?:\bnot\b|n't\b|\bno\b|\bcannot\b|\bonly\s+(?=\w+\s+(?:if|when|with)\b))
        (?:\s+(?:an?|be|currently|expect(?:ed)?|known|the|use|valid|yet
        |(?:accept|allow|permit|recogni[sz]|support)\w*))*
        |\b(?:un(?:expected|known|recogni[sz]ed|supported|permitted)|invalid|extra|additional|illegal
        |bad|forbidden|disallowed|refus\w+|reject\w+|got|received|remove|drop|but)\b
    )
    |(?P<fine>\b(?:accept(?:s|ed|able)?|allow(?:s|ed)?|available|choices?|choose|closest
        |expect(?:s|ed|ing)?|instead\s+of|known|mean|meant|one\s+of|only|options?|perhaps
        |permit(?:s|ted)?|possible|similar|such\s+as|support(?:s|ed)?|try|usage|use|valid)\b)
    |(?P<name>(?<![\w-])\w+(?![\w-]))""",
    re.VERBOSE | re.IGNORECASE,
)
"""The words of a sentence that say whether the names in it are refused, and the names."""
GAP: Final = re.compile(r"(?:[^\w.!?;]|\.(?!\s)|\b(?:and|or)\b|\b\w+_\w+\b)*")
"""What stands between the names of one list."""
TAKEN: Final = frozenset({"messages", "model", "prompt"})
"""Fields that each engine takes: a list with one of them does not say what is wrong."""


class FieldRefusal(Struct):
    """The fields that an engine's refusal names."""

    places: list[str]
    """Names that stand where an error says where it is."""
    texts: list[str]
    """The refusal's sentences."""

    @classmethod
    def of(cls, body: bytes, names: Collection[str]) -> "FieldRefusal":
        """Read it, for the sake of these names."""
        refusal = cls([], [])
        try:
            value = msgspec.json.decode(body)
        except UNREADABLE:
            value = body.decode(errors="replace")
        refusal._walk(value, names, "")
        return refusal

    def _walk(self, value: Any, names: Collection[str], under: str) -> None:
        if isinstance(value, str):
            self._read(value, names, under)
        elif isinstance(value, list):
            for entry in value:
                self._walk(entry, names, under)
        elif isinstance(value, dict):
            for key, entry in value.items():
                plain = key.lower().replace("_", "").replace("-", "")
                if key in names:  # as the key of what is wrong with it; a number is a quotation
                    self.places += [key] if isinstance(entry, str | list | dict) else []
                elif plain in PLACES or not LISTING.search(plain) or WRONG.search(plain):
                    self._walk(entry, names, plain)

    def _read(self, text: str, names: Collection[str], under: str) -> None:
        if under in PLACES:
            self.places += [name for name in NAMES.findall(text) if name in names]
            return
        for inner in LOC.findall(text):
            self.places += [name for name in NAMES.findall(inner) if name in names]
        self.texts.append(text)

    def names(self, candidates: Collection[str]) -> list[str]:
        """Those of these names that it refuses."""
        if self.places:
            return self.places
        quoted = [
            name for text in self.texts for name in QUOTED.findall(text) if name in candidates
        ]
        texts = ";".join(QUOTED.sub("", text) for text in self.texts)
        refused = _refused(texts, candidates)
        # One field with its number may be the fault; all of them are the request.
        return refused or (quoted if len(set(quoted)) < len(candidates) else [])


def _refused(text: str, candidates: Collection[str]) -> list[str]:
    """The names that a text calls wrong, without those that it also calls right."""
    lists = [listing for listing in _lists(text, candidates) if not TAKEN & listing.keys()]
    wrong = [listing for listing in lists if not all(listing.values())]
    wrong = [listing for listing in wrong if "temperature" not in listing] or wrong
    if len(lists) == 1 == len(lists[0]) and not _blames(text):
        return [*lists[0]]  # it says which value would be right
    right = {name for listing in lists for name, fine in listing.items() if fine}
    names = [name for listing in wrong for name in listing]
    return [name for name in names if name not in right] or names


def _blames(text: str) -> bool:
    return any(word.lastgroup == "wrong" for word in WORDS.finditer(text))


def _lists(text: str, candidates: Collection[str]) -> Iterator[dict[str, bool]]:
    """All names list by list, or one by one: whether they would be right."""
    listing: dict[str, bool] = {}
    right, at = False, 0
    for word in WORDS.finditer(text):
        kind, token = word.lastgroup, word[0]
        if kind == "name" and (token in candidates or token in TAKEN):
            if listing and not GAP.fullmatch(text, at, word.start()):
                yield listing
                listing = {}
            at = word.end()
            listing[token] = right
        elif kind != "name":
            if listing:
                yield dict.fromkeys(listing, True) if kind == "taken" else listing
            listing, right = {}, kind in ("right", "fine")
    if listing:
        yield listing


def lesser(written: Mapping[str, Any], body: bytes) -> dict[str, Any] | None:
    """Our fields for the next try of a call that an engine refused.

    Args:
        written: What we wrote, by name.
        body: The refusal's.

    Returns:
        Less, or other values; None where it refuses nothing of ours.
    """
    refused = set(FieldRefusal.of(body, written.keys()).names(written.keys()))
    if len(refused) > 1:
        # Without its temperature no reply can be trained on. So it is the last one to be left out.
        refused.discard("temperature")
    if not refused:
        return None
    left = {name: value for name, value in written.items() if name not in refused}
    if "top_k" in refused and written["top_k"] == -1:
        # Some engines read 0 as "all tokens", and nothing below it.
        left["top_k"] = 0
    return left
