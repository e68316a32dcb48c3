"""A response's output, grown part by part: whole and streamed replies are one machine's work."""

from typing import Any, Final

from msgspec import Struct

from odradek.proxy.dialects.parts import Part

Told = tuple[str, dict[str, Any]]
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
    logprobs: list[Any] = []
    open: bool = True

    def told(self, status: str) -> dict[str, Any]:
        """The item as it is in an output."""
        content = [self.part()] if self.text or status != "in_progress" else []
        if self.kind == "tool":
            return {
                "id": self.id, "type": "function_call", "status": status, "call_id": self.call_id,
                "name": self.name, "arguments": self.text,
            }  # fmt: skip
        if self.kind == "reasoning":
            return {
                "id": self.id, "type": "reasoning", "summary": [], "content": content,
                "encrypted_content": None, "status": status,
            }  # fmt: skip
        return {
            "id": self.id, "type": "message", "status": status, "role": "assistant",
            "content": content,
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


class Output:
    """All items of a response.

    Args:
        name: The response's, out of which those of its items are made.
    """

    def __init__(self, name: str) -> None:
        self._name = name.rpartition("_")[2][:20]
        self._items: list[Item] = []
        self._tools: dict[int, Item] = {}

    def add(self, part: Part, logprobs: list[Any]) -> list[Told]:
        """Take in a part; gives the events that tell of it."""
        told: list[Told] = []
        item = self._item(part)
        if item is None:
            told = self.close()
            item = self._new(part)
            told += _opened(item)
        if not part.text:
            return told
        item.text += part.text
        if part.kind == "tool":
            told.append(_event(item, "response.function_call_arguments.delta", delta=part.text))
            return told
        more = {}
        if part.kind == "text":
            item.logprobs = item.logprobs + logprobs
            more = {"logprobs": logprobs}
        kind = PARTS[part.kind]
        told.append(
            _event(item, f"response.{kind}.delta", content_index=0, delta=part.text, **more)
        )
        return told

    def _item(self, part: Part) -> Item | None:
        """The item that the part goes on with; calls may come back to an earlier one."""
        if part.kind == "tool":
            return self._tools.get(part.tool)
        last = self._items[-1] if self._items else None
        return last if last and last.open and last.kind == part.kind else None

    def _new(self, part: Part) -> Item:
        index = len(self._items)
        item = Item(part.kind, f"{KINDS[part.kind]}_{self._name}_{index}", index)
        self._items.append(item)
        if part.kind == "tool":
            item.call_id, item.name = part.id or f"call_{self._name}_{index}", part.name
            self._tools[part.tool] = item
        return item

    def close(self, status: str = "completed") -> list[Told]:
        """The last item is complete."""
        last = self._items[-1] if self._items else None
        if last is None or not last.open:
            return []
        last.open = False
        told: list[Told] = []
        if last.kind == "tool":
            name = "response.function_call_arguments.done"
            told.append(_event(last, name, name=last.name, arguments=last.text))
        else:
            kind = PARTS[last.kind]
            field = "refusal" if last.kind == "refusal" else "text"
            more = {"logprobs": last.logprobs} if last.kind == "text" else {}
            told += [
                _event(
                    last, f"response.{kind}.done", content_index=0, **{field: last.text}, **more
                ),
                _event(last, "response.content_part.done", content_index=0, part=last.part()),
            ]
        done = {"output_index": last.index, "item": last.told(status)}
        return [*told, ("response.output_item.done", done)]

    def told(self, *, complete: bool = True) -> list[dict[str, Any]]:
        """All items; the last one was cut off where the output is not complete."""
        found = [item.told("completed") for item in self._items]
        if found and not complete:
            found[-1]["status"] = "incomplete"
        return found


def _opened(item: Item) -> list[Told]:
    told = [
        ("response.output_item.added", {
            "output_index": item.index, "item": item.told("in_progress"),
        }),
    ]  # fmt: skip
    if item.kind != "tool":
        part = item.part()
        told.append(_event(item, "response.content_part.added", content_index=0, part=part))
    return told


def _event(item: Item, kind: str, **fields: Any) -> Told:
    return kind, {"item_id": item.id, "output_index": item.index, **fields}
