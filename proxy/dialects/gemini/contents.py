"""Gemini's contents as messages of a chat.

Clients keep each chunk of a stream as a content of its own, so contents of the model that follow
one another are one message, as it was sampled.
"""

import base64
import binascii
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.dialects.gemini import fields
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.tools.hosted import Absent
from odradek.proxy.dialects.translation import history, opaque
from odradek.proxy.errors import BadRequest, Unsupported

MODEL: Final = frozenset({"model", "assistant"})
USER: Final = frozenset({"", "user", "function", "tool"})
HOSTED: Final = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""Parts of hosted tools."""
TEXTS: Final = ("output", "result", "content")
"""Names under which clients put the text of a result that has no other field."""


class Content(Struct):
    """A message of the conversation."""

    role: str | None = None
    parts: Any = None


class ContentPart(Struct, rename="camel"):
    """A part of it: one of these."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Any = None
    file_data: Any = None
    function_call: Any = None
    function_response: Any = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None

    @property
    def hosted(self) -> str:
        """Which part of a hosted tool it is, "" if none."""
        parts = (
            self.executable_code, self.code_execution_result, self.tool_call, self.tool_response,
        )  # fmt: skip
        return next(
            (kind for kind, value in zip(HOSTED, parts, strict=True) if value is not None), ""
        )

    @property
    def media(self) -> bool:
        """Whether it is neither text nor a call."""
        return self.inline_data is not None or self.file_data is not None


class Blob(Struct, rename="camel"):
    """Bytes, as base64."""

    mime_type: str = ""
    data: str = ""


class File(Struct, rename="camel"):
    """A file, by its address."""

    file_uri: str = ""
    mime_type: str = ""


class FunctionCall(Struct, rename="camel"):
    """A call that the model made."""

    name: str = ""
    id: str | None = None
    args: dict[str, Any] | None = None


class FunctionResponse(Struct, rename="camel"):
    """The result of a call."""

    name: str = ""
    id: str | None = None
    response: Any = None
    parts: Any = None


class ChatBuilder:
    """Grows the messages of a chat.

    Args:
        memory: How the engine spelt earlier calls.
        absent: Takes in what no engine has.
    """

    def __init__(self, memory: ReplyStore, absent: Absent) -> None:
        self.messages: list[dict[str, Any]] = []
        self._memory = memory
        self._absent = absent
        self._calls = 0
        self._open: list[tuple[str, str]] = []
        """Name and id of calls that have no result yet."""

    def instruct(self, instruction: Any) -> None:
        """Take in the system's instruction. Raises BadRequest."""
        where = "systemInstruction"
        if isinstance(instruction, str):
            instruction = {"parts": [{"text": instruction}]}
        if instruction is None:
            return
        content: Content = fields.convert(instruction, Content, where)
        texts = []
        for part, at in _parts(content, where):
            if part.text is None:
                raise Unsupported(f"{at}: text only", param=at)
            texts.append(part.text)
        if texts:
            self.messages.append({"role": "system", "content": "\n".join(texts)})

    def add(self, listed: list[Any]) -> None:
        """Read one message. Raises BadRequest."""
        for place, entry in enumerate(listed):
            where = f"contents[{place}]"
            content: Content = fields.convert(entry, Content, where)
            role = (content.role or "").lower()
            if role in MODEL:
                for part, at in _parts(content, where):
                    self._say(part, at)
            elif role in USER or role == "system":
                self._hear("system" if role == "system" else "user", _parts(content, where))
            else:
                raise BadRequest(f"{where}.role: user or model", param=f"{where}.role")

    def finish(self) -> list[dict[str, Any]]:
        """All messages."""
        for message in self.messages:
            thoughts = message.pop("thoughts", "")
            if thoughts and "reasoning" not in message:
                message["reasoning"] = thoughts
        return self.messages

    def _say(self, part: ContentPart, where: str) -> None:
        """A part of the model's."""
        if part.hosted:
            self._absent.leave(part.hosted, f"{where}.{part.hosted}")
            return
        if part.media or part.function_response is not None:
            raise BadRequest(f"{where}: no such part in a content of the model", param=where)
        signed = opaque.unpack(part.thought_signature)
        if part.function_call is not None:
            call: FunctionCall = fields.convert(
                part.function_call, FunctionCall, f"{where}.functionCall"
            )
            history.reply(self.messages).setdefault("tool_calls", []).append(self._called(call))
        elif part.thought:
            message = history.reply(self.messages, "content", "tool_calls")
            message["thoughts"] = message.get("thoughts", "") + (part.text or "")
        elif part.text:
            message = history.reply(self.messages, "tool_calls")
            message["content"] = (message["content"] or "") + part.text
        if signed:
            history.reply(self.messages)["reasoning"] = signed

    def _called(self, call: FunctionCall) -> dict[str, Any]:
        arguments = self._memory.arguments(call.id or "", call.args or {})
        call_id = call.id or f"call_{self._calls}"
        self._calls += 1
        self._open.append((call.name, call_id))
        function = {"name": call.name, "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    def _hear(self, role: str, parts: list[tuple[ContentPart, str]]) -> None:
        """A content of somebody else's: results stand as messages of their own, in order."""
        shown: list[dict[str, Any]] = []
        for part, where in parts:
            if part.hosted:
                self._absent.leave(part.hosted, f"{where}.{part.hosted}")
            elif part.function_response is not None:
                self._show(role, shown)
                shown = []
                answer: FunctionResponse = fields.convert(
                    part.function_response, FunctionResponse, f"{where}.functionResponse"
                )
                self.messages.append(self._answered(answer, f"{where}.functionResponse"))
            elif part.function_call is not None:
                raise BadRequest(f"{where}: no call in a content of the user", param=where)
            elif (piece := _shown(part, where)) is not None:
                shown.append(piece)
        self._show(role, shown)

    def _show(self, role: str, shown: list[dict[str, Any]]) -> None:
        if shown:
            self.messages.append({"role": role, "content": history.content(shown)})

    def _answered(self, answer: FunctionResponse, where: str) -> dict[str, Any]:
        text = _text(answer.response)
        pieces = [{"type": "text", "text": text}] if text else []
        for place, entry in enumerate(fields.listed(answer.parts, f"{where}.parts")):
            at = f"{where}.parts[{place}]"
            piece = _shown(fields.convert(entry, ContentPart, at), at)
            if piece is not None:
                pieces.append(piece)
        return {
            "role": "tool",
            "tool_call_id": self._answers(answer),
            "content": history.content(pieces),
        }

    def _answers(self, answer: FunctionResponse) -> str:
        """The id of the call that it answers; where it names none, the first of that name."""
        for place, (name, call_id) in enumerate(self._open):
            if call_id == answer.id or (not answer.id and name == answer.name):
                del self._open[place]
                return call_id
        return answer.id or f"call_{answer.name}"


def _parts(content: Content, where: str) -> list[tuple[ContentPart, str]]:
    entries = content.parts
    if isinstance(entries, str):
        entries = [{"text": entries}]
    parts = []
    for place, entry in enumerate(fields.listed(entries, f"{where}.parts")):
        at = f"{where}.parts[{place}]"
        part = {"text": entry} if isinstance(entry, str) else entry
        parts.append((fields.convert(part, ContentPart, at), at))
    return parts


def _shown(part: ContentPart, where: str) -> dict[str, Any] | None:
    """A part that a user, or a tool, may show; None where there is nothing in it."""
    if part.inline_data is not None:
        return _blob(fields.convert(part.inline_data, Blob, f"{where}.inlineData"), where)
    if part.file_data is not None:
        file: File = fields.convert(part.file_data, File, f"{where}.fileData")
        if not file.file_uri.startswith(("http://", "https://")) or not _image(file.mime_type):
            at = f"{where}.fileData"
            raise Unsupported(f"{at}: images by their address only", param=at)
        return {"type": "image_url", "image_url": {"url": file.file_uri}}
    return None if part.text is None else {"type": "text", "text": part.text}


def _image(kind: str) -> bool:
    return not kind or kind.startswith("image/")


def _blob(blob: Blob, where: str) -> dict[str, Any]:
    data = blob.data.replace("-", "+").replace("_", "/")
    if blob.mime_type.startswith("text/"):
        try:
            text = base64.b64decode(data, validate=True).decode()
        except (binascii.Error, ValueError):
            at = f"{where}.inlineData.data"
            raise BadRequest(f"{at}: no text in base64", param=at) from None
        return {"type": "text", "text": text}
    if not blob.mime_type.startswith("image/"):
        at = f"{where}.inlineData.mimeType"
        raise Unsupported(f"{at}: images and text only", param=at)
    return {"type": "image_url", "image_url": {"url": f"data:{blob.mime_type};base64,{data}"}}


def _text(response: Any) -> str:
    """A result as text: itself where it is nothing else, JSON otherwise."""
    if isinstance(response, str):
        return response
    if isinstance(response, dict) and len(response) == 1:
        ((name, value),) = response.items()
        if name in TEXTS and isinstance(value, str):
            return value
    return "" if response is None else msgspec.json.encode(response).decode()
