"""Tools that take text, not JSON (`custom`): to the engine a function with one string.

The model writes the function's arguments, and the agent gets the string in them. Models make
mistakes in this JSON if the text is code, and half of the text would do harm. So nothing is lost:
arguments that are not our JSON are the text itself.
"""

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.dialects import replies
from odradek.proxy.dialects.tools.names import Names

ARGUMENT: Final = "input"
LANGUAGES: Final = {"lark": "Lark grammar", "regex": "regular expression"}
_HEAD: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_BEGINS: Final = '{"input":"'
_LONGEST_HEAD: Final = 256
_PLAIN: Final = re.compile(r'[^"\\]+')
_TAIL: Final = re.compile(r'"?\s*\}?\s*\Z')
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_CODE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_HALF: Final = re.compile(r"(\\(u[0-9a-fA-F]{0,3})?)?")
HIGH: Final = range(0xD800, 0xDC00)
LOW: Final = range(0xDC00, 0xE000)
NO_CHARACTER: Final = "\ufffd"
"""Replaces half a surrogate pair, which no JSON may hold."""
Decoded = tuple[str, int]
"""Characters, and where the text goes on."""


class Grammar(Struct):
    """The grammar of the text."""

    syntax: str = ""
    definition: str = ""


class GrammarFormat(Struct):
    """The same: within the format (Responses), or one level deeper (chats)."""

    type: str = "text"
    syntax: str = ""
    definition: str = ""
    grammar: Grammar | None = None


def function(description: str | None, form: GrammarFormat | None) -> dict[str, Any]:
    """The function for a tool that takes text; no engine holds an argument to a grammar."""
    grammar = form.grammar or Grammar(form.syntax, form.definition) if form else Grammar()
    texts = [description] if description else []
    if grammar.definition:
        language = LANGUAGES.get(grammar.syntax, "grammar")
        texts.append(f"The input follows this {language}:\n{grammar.definition}")
    fields: dict[str, Any] = {"description": "\n\n".join(texts)} if texts else {}
    return {
        **fields,
        "parameters": {
            "type": "object",
            "properties": {ARGUMENT: {"type": "string"}},
            "required": [ARGUMENT],
            "additionalProperties": False,
        },
    }


class Reader:
    """Reads the text out of a call's arguments as they come, in pieces of any size."""

    def __init__(self) -> None:
        self._held = ""
        """The arguments that have not been read yet."""
        self._place = "head"
        self._all: list[str] = []

    def feed(self, arguments: str) -> str:
        """The new part of the text."""
        self._all.append(arguments)
        self._held += arguments
        if self._place == "head":
            self._begin()
        return self._read() if self._place == "text" else ""

    def _begin(self) -> None:
        if (head := _HEAD.match(self._held, 0, _LONGEST_HEAD)) is not None:
            self._held, self._place = self._held[head.end() :], "text"
            return
        begun = "".join(self._held.split()) if len(self._held) < _LONGEST_HEAD else "too long"
        if not _BEGINS.startswith(begun):
            self._place = "other"

    def _read(self) -> str:
        """Up to the closing quote, or to an escape that is not whole yet."""
        pieces = []
        at = 0
        while at < len(self._held):
            if self._held[at] == '"':
                self._place = "behind"
                break
            decoded = _next(self._held, at, last=False)
            if decoded is None:
                break
            pieces.append(decoded[0])
            at = decoded[1]
        self._held = self._held[at:]
        return "".join(pieces)

    def end(self) -> str:
        """The rest of the text: no more arguments come."""
        place, self._place = self._place, "over"
        if place == "behind":
            return self._behind()
        if place in ("head", "other"):
            return _other("".join(self._all))
        return ""  # cut off: half an escape is no text

    def _behind(self) -> str:
        """The text behind the closing quote: empty, unless that quote belonged to the text."""
        rest = self._held[1:]
        if rest.strip() in ("", "}"):
            return ""
        try:
            msgspec.json.decode("".join(self._all))
        except (msgspec.MsgspecError, RecursionError):
            return '"' + _decoded(_TAIL.sub("", rest, count=1))
        return ""  # other arguments, which the agent has no place for


def read(arguments: str) -> str:
    """The text in a call's arguments."""
    reader = Reader()
    return reader.feed(arguments) + reader.end()


def values(names: Names) -> replies.Values:
    """A call as the agent sends it back, to be compared with the engine's spelling."""

    def value(name: str, arguments: str) -> dict[str, Any]:
        if names.tool(name).kind == "custom":
            return {ARGUMENT: read(arguments)}
        return replies.read(arguments)

    return value


def _next(text: str, at: int, *, last: bool) -> Decoded | None:
    """The characters at a place of a JSON string; None if more arguments must come first."""
    if (plain := _PLAIN.match(text, at)) is not None:
        return plain[0], plain.end()
    if text[at] == '"':
        return '"', at + 1
    if at + 1 == len(text):
        return ("", at + 1) if last else None
    letter = text[at + 1]
    if letter == "u":
        return _code(text, at, last=last)
    if letter in '"\\/':
        return letter, at + 2
    # An escape that JSON does not have is meant as it stands, as in a regular expression.
    return _LETTERS.get(letter, "\\" + letter), at + 2


def _code(text: str, at: int, *, last: bool) -> Decoded | None:
    code = _CODE.match(text, at)
    if code is None:
        return None if _comes(text, at, last=last) else ("\\u", at + 2)
    unit, end = int(code[1], 16), code.end()
    if unit not in HIGH:
        return NO_CHARACTER if unit in LOW else chr(unit), end
    second = _CODE.match(text, end)
    if second is not None and (low := int(second[1], 16)) in LOW:
        return chr(0x10000 + ((unit - HIGH.start) << 10) + low - LOW.start), second.end()
    if second is None and _comes(text, end, last=last):
        return None
    return NO_CHARACTER, end


def _comes(text: str, at: int, *, last: bool) -> bool:
    """Whether what is here may be the beginning of an escaped code unit."""
    return not last and _HALF.fullmatch(text, at) is not None


def _decoded(text: str) -> str:
    pieces = []
    at = 0
    while at < len(text):
        decoded = _next(text, at, last=True)
        if decoded is None:
            break
        pieces.append(decoded[0])
        at = decoded[1]
    return "".join(pieces)


def _other(arguments: str) -> str:
    """The text of arguments that do not begin with ours."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.MsgspecError, RecursionError):
        return arguments
    if isinstance(value, str) or value == {}:
        return value or ""
    if isinstance(value, dict):
        text = value.get(ARGUMENT, next(iter(value.values())) if len(value) == 1 else None)
        if isinstance(text, str):
            return text
    return arguments
