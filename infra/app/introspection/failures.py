"""Whether the result of a tool is an error, by its words: no record says so. Pure.

The chat completions API, in whose shape turns are recorded, has no field for it. So what agents and
their tools write is held against what is usual: a field of a JSON object, an exit code, the name of
an exception, or a word at the beginning.
"""

import re
from typing import Any, Final

import msgspec

LONGEST: Final = 64
"""Characters of the kind of an error."""
LOOKED_AT: Final = 512
"""Characters of a text that are held against patterns: errors begin with what they are."""
EXCEPTION: Final = re.compile(r"\b([A-Z][A-Za-z0-9]*(?:Error|Exception|Timeout|Exit))\b")
EXIT_CODE: Final = re.compile(
    r"""(?imx)^[\s\[(<]*(?:process\ )?(?:exit(?:ed)?|return)(?:[ _-]?(?:with|status|code))*
    \s*[:=]?\s*(-?\d+)"""
)
BEGINNING: Final = re.compile(
    r"""(?ix)^[\s\[(<*`"']*
    (?:tool_use_error|error|errno|exception|fatal|traceback
    |command\ (?:failed|not\ found)|permission\ denied|no\ such\ file|timed?\ ?out)\b"""
)
NO: Final = frozenset({"ok", "success", "succeeded"})
"""Fields that are false where it failed."""
YES: Final = frozenset({"error", "errors", "iserror", "failed", "failure", "exception"})
"""Fields that are true, or say more, where it failed."""
CODES: Final = frozenset({"exitcode", "returncode", "exitstatus"})
"""Fields that are another number than 0 where it failed."""
STATES: Final = frozenset({"error", "failed", "failure", "timeout"})
"""What a field `status` holds where it failed."""


def failure_of(text: str) -> str:
    """The kind of the error that the result of a tool is; "" where it is none.

    A kind is the name of an exception, `exit code N`, or `error`: few words, for counting.
    """
    if text.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            value = None
        if isinstance(value, dict):
            return _of_object(value)
    return _of_text(text[:LOOKED_AT])


def kind_of(text: str) -> str:
    """The kind of an error of an episode or a call, by its text: equal ones have one; "" for none.

    It is the name of an exception, or else the text's beginning without its numbers and ids.
    """
    begins = re.match(r"[\w.]*?([A-Za-z]\w*)(?=: )", text)
    if begins and EXCEPTION.fullmatch(begins[1]):
        return begins[1][:LONGEST]
    named = EXCEPTION.search(text[:LOOKED_AT])
    if named:
        return named[1][:LONGEST]
    plain = re.sub(r"\b(?=\w*\d)[\w-]+\b", "N", text[:LOOKED_AT])
    return " ".join(plain.split())[:LONGEST]


def _of_object(value: dict[str, Any]) -> str:
    for name, inner in value.items():
        plain = str(name).replace("_", "").replace("-", "").lower()
        if plain in YES and inner not in (None, False, 0, "", [], {}):
            return _named(inner if isinstance(inner, str) else _words(inner))
        if plain in NO and inner is False:
            return _named(_words(value))
        if plain in CODES and isinstance(inner, int) and inner not in (0, False):
            return f"exit code {inner}"[:LONGEST]
        if plain == "status" and isinstance(inner, str) and inner.lower() in STATES:
            return _named(_words(value))
    return ""


def _of_text(text: str) -> str:
    code = EXIT_CODE.search(text)
    if code:
        return "" if int(code[1]) == 0 else f"exit code {int(code[1])}"[:LONGEST]
    begins = re.match(r"[\s\[(<*`\"']*(?:[\w.]+\.)?([A-Z]\w*)\s*[:(]", text)
    if begins and EXCEPTION.fullmatch(begins[1]):
        return begins[1][:LONGEST]
    return _named(text) if BEGINNING.match(text) else ""


def _named(text: str) -> str:
    named = EXCEPTION.search(text[:LOOKED_AT])
    return named[1][:LONGEST] if named else "error"


def _words(value: Any) -> str:
    """As text, for the name of an exception in it."""
    try:
        return msgspec.json.encode(value).decode(errors="replace")
    except (TypeError, ValueError, RecursionError):
        return ""
