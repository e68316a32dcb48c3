"""A stream's message, put together from the deltas of its chunks."""

from typing import Any, Final

from odradek.proxy.wire.shapes import TEXTS

WORDS: Final = (*TEXTS, "tool_calls", "function_call")
"""The fields of a message that were sampled."""


def merge(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a chunk's delta to the message that the chunks before it made."""
    for name, value in delta.items():
        before = message.get(name)
        if value.__class__ is str and before.__class__ is str:  # as nearly all are
            message[name] = value if name == "role" else before + value
        elif name == "tool_calls" and isinstance(value, list):
            calls = before if isinstance(before, list) else []
            _merge_calls(calls, value)
            message[name] = calls
        elif isinstance(before, list) and isinstance(value, list):
            message[name] = [*before, *value]
        elif isinstance(before, dict) and isinstance(value, dict):
            message[name] = _merged(before, value)
        elif value is not None or name not in message:
            message[name] = value


def says(delta: dict[str, Any]) -> bool:
    """Whether a chunk's delta holds something that was sampled."""
    return any(map(delta.get, WORDS))


def _merge_calls(calls: list[Any], deltas: list[Any]) -> None:
    for delta in deltas:
        if not isinstance(delta, dict):
            continue
        index = delta.get("index", 0)
        part = {name: value for name, value in delta.items() if name != "index"}
        if not isinstance(index, int) or not 0 <= index <= len(calls):
            index = len(calls)
        if index == len(calls):
            calls.append({})
        call = calls[index]
        function, new = call.pop("function", None), part.pop("function", None)
        for name, value in part.items():
            if isinstance(value, dict) and isinstance(before := call.get(name), dict):
                call[name] = _merged(before, value)
            elif value is not None:
                call[name] = value
        new = new if isinstance(new, dict) else {}
        if function or new or not isinstance(call.get("custom"), dict):
            call["function"] = _merged(function or {}, new)


def _merged(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Texts grow, null says nothing, and whatever else comes later wins."""
    merged = dict(before)
    for name, value in new.items():
        earlier = merged.get(name)
        if isinstance(earlier, str) and isinstance(value, str):
            merged[name] = earlier + value
        elif value is not None:
            merged[name] = value
    return merged
