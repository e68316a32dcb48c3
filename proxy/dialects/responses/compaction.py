"""A conversation summed up by the model itself, so that it goes on in less room.

OpenAI's servers do this behind `/responses/compact`, and behind an item `compaction_trigger`.
Clients keep the summary unread and send it in the place of what it sums up. Here it is a call like
any other, sampled and recorded, so the tree shows where a conversation began anew.
"""

from typing import Any, Final

import msgspec

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.responses.output import OutputEvent
from odradek.proxy.dialects.translation import opaque, parts
from odradek.proxy.dialects.translation.parts import ReplyPart

TRIGGER: Final = "compaction_trigger"
PROMPT: Final = {
    "role": "user",
    "content": (
        "Sum up this conversation for yourself, since you will go on from the summary alone. Say "
        "what was asked and what must be kept to, what has been done and found out, what is still "
        "to do, and each name, path and number that this needs."
    ),
}


def is_requested(new_input: str | list[Any]) -> bool:
    """Whether the last item asks for a summary."""
    last = new_input[-1] if isinstance(new_input, list) and new_input else None
    return isinstance(last, dict) and last.get("type") == TRIGGER


class Compacted:
    """The output of such a call: one item, with the summary in it.

    Args:
        name: The response's.
    """

    def __init__(self, name: str) -> None:
        self._id = f"cmp_{name.rpartition('_')[2][:20]}_0"
        self._text = ""
        self._open = False

    def add(self, part: ReplyPart, _: list[Any]) -> list[OutputEvent]:
        """Take in a part; the client sees none of it before it is whole."""
        if part.kind != "text":
            return []
        self._text += part.text
        return self._begin()

    def _begin(self) -> list[OutputEvent]:
        if self._open:
            return []
        self._open = True
        item = {**self._item(), "encrypted_content": ""}
        return [("response.output_item.added", {"output_index": 0, "item": item})]

    def close(self, _: str = "completed") -> list[OutputEvent]:
        """The summary is complete."""
        done = {"output_index": 0, "item": self._item()}
        return [*self._begin(), ("response.output_item.done", done)]

    def _item(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "compaction",
            "encrypted_content": opaque.pack(self._text),
        }

    def as_json(self, *, complete: bool = True) -> list[dict[str, Any]]:
        """The item, once there is some of it."""
        return [self._item()] if self._open else []


def whole(response: dict[str, Any], request: ParsedRequest) -> dict[str, Any]:
    """The answer of `/responses/compact`: what users said, and the summary of all."""
    reply_id = parts.identity(response["id"], request)[:20]
    messages = [
        {**item, "id": f"msg_{reply_id}_{place}", "type": "message", "status": "completed"}
        for place, item in enumerate(getattr(request.origin, "users", ()))
    ]
    return {
        "id": response["id"],
        "object": "response.compaction",
        "created_at": response["created_at"],
        "output": [*messages, *response["output"]],
        "usage": response["usage"],
    }


def users(raw: bytes) -> tuple[dict[str, Any], ...]:
    """The users' messages of an input, which are kept beside the summary."""
    value = msgspec.json.decode(raw)
    if isinstance(value, str):
        return (_user([{"type": "input_text", "text": value}]),)
    messages = []
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and item.get("role") == "user":
            content = item.get("content")
            text = isinstance(content, str)
            messages.append(_user([{"type": "input_text", "text": content}] if text else content))
    return tuple(messages)


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}
