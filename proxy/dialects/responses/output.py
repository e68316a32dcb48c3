"""A response's output, grown part by part: whole and streamed replies are one machine's work."""

from typing import Any, Final

from msgspec import Struct

from odradek.proxy.dialects.tools import freeform
from odradek.proxy.dialects.tools.names import Names
from odradek.proxy.dialects.translation import opaque
from odradek.proxy.dialects.translation.parts import ReplyPart

OutputEvent = tuple[str, dict[str, Any]]
"""The name of an event, and its fields."""
KINDS: Final = {"reasoning": "rs", "text": "msg", "refusal": "msg", "tool": "fc"}
PARTS: Final = {"reasoning": "reasoning_text", "text": "output_text", "refusal": "refusal"}


class Item(Struct):
    """One item."""

    kind: str
    id: str
    index: int
    text: str = ""
    call_id: str = ""
    name: str = ""
    namespace: str = ""
    logprobs: list[Any] = []
    open: bool = True
    opaque: bool = False
    """Whether reasoning is packed, too."""
    reader: freeform.Reader | None = None
    """The reader of a call whose tool takes text."""

    def as_json(self, status: str) -> dict[str, Any]:
        """The item as it is in an output."""
        content = [self.part()] if self.text or status != "in_progress" else []
        if self.kind == "tool":
            return self._call(status)
        if self.kind == "reasoning":
            packed = opaque.pack(self.text) if self.opaque else None
            return {
                "id": self.id, "type": "reasoning", "summary": [], "content": content,
                "encrypted_content": packed, "status": status,
            }  # fmt: skip
        return {
            "id": self.id, "type": "message", "status": status, "role": "assistant",
            "content": content,
        }  # fmt: skip

    def _call(self, status: str) -> dict[str, Any]:
        custom = self.reader is not None
        return {
            "id": self.id, "type": "custom_tool_call" if custom else "function_call",
            "status": status, "call_id": self.call_id, "name": self.name,
            **({"namespace": self.namespace} if self.namespace else {}),
            "input" if custom else "arguments": self.text,
        }  # fmt: skip

    def part(self) -> dict[str, Any]:
        """Its content."""
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": self.text}
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self.text}
        return {
            "type": "output_text", "text": self.text, "annotations": [],
            "logprobs": self.logprobs,
        }  # fmt: skip


class ResponseOutput:
    """All items of a response.

    Args:
        name: The response's, out of which those of its items are made.
        names: Which tools the model's calls are for.
        packs: Whether reasoning goes out in a form that the client hands back.
    """

    def __init__(self, name: str, names: Names | None = None, *, packs: bool = False) -> None:
        self._name = name.rpartition("_")[2][:20]
        self._names = names or Names()
        self._packs = packs
        self._items: list[Item] = []
        self._tools: dict[int, Item] = {}

    def add(self, part: ReplyPart, logprobs: list[Any]) -> list[OutputEvent]:
        """Take in a part; returns its events."""
        events: list[OutputEvent] = []
        item = self._item(part)
        if item is None:
            events = self._done(self._last())
            item = self._new(part)
            events += _opened(item)
        if part.kind == "tool":
            return events + _called(item, item.reader.feed(part.text) if item.reader else part.text)
        if not part.text:
            return events
        item.text += part.text
        more = {}
        if part.kind == "text":
            item.logprobs = item.logprobs + logprobs
            more = {"logprobs": logprobs}
        kind = PARTS[part.kind]
        events.append(
            _event(item, f"response.{kind}.delta", content_index=0, delta=part.text, **more)
        )
        return events

    def _last(self) -> list[Item]:
        """The items that a new item ends; calls stay open: their arguments may be interleaved."""
        return [item for item in self._items[-1:] if item.kind != "tool"]

    def _item(self, part: ReplyPart) -> Item | None:
        """The item that the part goes on with; calls may come back to an earlier one."""
        if part.kind == "tool":
            return self._tools.get(part.tool)
        last = self._items[-1] if self._items else None
        return last if last and last.open and last.kind == part.kind else None

    def _new(self, part: ReplyPart) -> Item:
        index = len(self._items)
        item = Item(part.kind, f"{KINDS[part.kind]}_{self._name}_{index}", index)
        self._items.append(item)
        if part.kind == "reasoning":
            item.opaque = self._packs
        if part.kind == "tool":
            tool = self._names.tool(part.name)
            item.call_id = part.id or f"call_{self._name}_{index}"
            item.name, item.namespace = tool.name, tool.namespace
            if tool.kind == "custom":
                item.id, item.reader = f"ctc_{self._name}_{index}", freeform.Reader()
            self._tools[part.tool] = item
        return item

    def close(self, status: str = "completed") -> list[OutputEvent]:
        """All items are complete, but the last one where the output was cut off."""
        return self._done(self._items[:-1]) + self._done(self._items[-1:], status)

    def _done(self, items: list[Item], status: str = "completed") -> list[OutputEvent]:
        events: list[OutputEvent] = []
        for item in items:
            if item.open:
                item.open = False
                events += _ended(item)
                done = {"output_index": item.index, "item": item.as_json(status)}
                events.append(("response.output_item.done", done))
        return events

    def as_json(self, *, complete: bool = True) -> list[dict[str, Any]]:
        """All items; the last one was cut off where the output is not complete."""
        items = [item.as_json("completed") for item in self._items]
        if items and not complete:
            items[-1]["status"] = "incomplete"
        return items


def _opened(item: Item) -> list[OutputEvent]:
    events = [
        ("response.output_item.added", {
            "output_index": item.index, "item": item.as_json("in_progress"),
        }),
    ]  # fmt: skip
    if item.kind != "tool":
        part = item.part()
        events.append(_event(item, "response.content_part.added", content_index=0, part=part))
    return events


def _called(item: Item, text: str) -> list[OutputEvent]:
    """More of what a tool is called with."""
    if not text:
        return []
    item.text += text
    name = "function_call_arguments" if item.reader is None else "custom_tool_call_input"
    return [_event(item, f"response.{name}.delta", delta=text)]


def _ended(item: Item) -> list[OutputEvent]:
    """The end of an item's text."""
    if item.reader is not None:
        events = _called(item, item.reader.end())
        return [*events, _event(item, "response.custom_tool_call_input.done", input=item.text)]
    if item.kind == "tool":
        name = "response.function_call_arguments.done"
        return [_event(item, name, name=item.name, arguments=item.text)]
    kind = PARTS[item.kind]
    field = "refusal" if item.kind == "refusal" else "text"
    more = {"logprobs": item.logprobs} if item.kind == "text" else {}
    return [
        _event(item, f"response.{kind}.done", content_index=0, **{field: item.text}, **more),
        _event(item, "response.content_part.done", content_index=0, part=item.part()),
    ]


def _event(item: Item, kind: str, **fields: Any) -> OutputEvent:
    return kind, {"item_id": item.id, "output_index": item.index, **fields}
