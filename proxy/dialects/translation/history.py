"""A history in the form of chats, as the translated dialects grow it."""

from typing import Any


def content(pieces: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as a message's content: a single text becomes a string, which templates take plain."""
    if not pieces:
        return ""
    if len(pieces) == 1 and pieces[0]["type"] == "text":
        return str(pieces[0]["text"])
    return pieces


def reply(messages: list[dict[str, Any]], *full: str) -> dict[str, Any]:
    """The assistant's message to continue; a new one if the last has one of `full` already.

    A reply was sampled as one message, but comes back in several entries.
    """
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant" or any(last.get(name) for name in full):
        last = {"role": "assistant", "content": None}
        messages.append(last)
    return last
