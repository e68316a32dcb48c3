"""The items of a response's input."""

from typing import Any, Literal

from msgspec import Struct


class InputText(Struct, tag="input_text"):
    """Text of a user or of the system."""

    text: str


class PlainText(Struct, tag="text"):
    """The same, as some clients spell it."""

    text: str


class OutputText(Struct, tag="output_text"):
    """Text of the model."""

    text: str


class RefusalPart(Struct, tag="refusal"):
    """A refusal of the model."""

    refusal: str


class InputImage(Struct, tag="input_image"):
    """An image, by its address."""

    image_url: str | None = None
    detail: str | None = None


class SummaryText(Struct, tag="summary_text"):
    """A part of a summary of reasoning."""

    text: str


class ReasoningText(Struct, tag="reasoning_text"):
    """A part of the reasoning."""

    text: str


class Opaque(Struct, tag="encrypted_content"):
    """A part that only its maker can read."""

    encrypted_content: str = ""


Part = InputText | PlainText | OutputText | RefusalPart | InputImage


class MessageItem(Struct, tag="message"):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part] = ""


class AgentMessage(Struct, tag="agent_message"):
    """A message of another agent of the same team."""

    content: list[InputText | PlainText | OutputText | Opaque] = []
    author: str = ""
    recipient: str = ""


class FunctionCallItem(Struct, tag="function_call"):
    """A call that the model made."""

    call_id: str
    name: str
    arguments: str = ""
    namespace: str | None = None


class CustomCall(Struct, tag="custom_tool_call"):
    """A call of a tool that takes text."""

    call_id: str
    name: str
    input: str = ""
    namespace: str | None = None


class FunctionOutput(Struct, tag="function_call_output"):
    """The result of a function's call."""

    call_id: str
    output: str | list[Part] = ""


class CustomOutput(Struct, tag="custom_tool_call_output"):
    """The result of a text tool's call."""

    call_id: str
    output: str | list[Part] = ""


class ShellCall(Struct, tag="local_shell_call"):
    """A call of a tool whose schema only OpenAI's models know, in a history of theirs."""

    action: dict[str, Any] = {}
    call_id: str | None = None
    id: str | None = None


class ShellOutput(Struct, tag="local_shell_call_output"):
    """The result of such a call."""

    output: str = ""
    call_id: str | None = None
    id: str | None = None


class Reasoning(Struct, tag="reasoning"):
    """The model's reasoning."""

    content: list[ReasoningText | SummaryText | PlainText] | None = None
    encrypted_content: str | None = None


class ToolsItem(Struct, tag="additional_tools"):
    """Tools, among the items."""

    tools: list[Any] = []


class CompactionItem(Struct, tag="compaction"):
    """A summary of the conversation before it."""

    encrypted_content: str | None = None


class Trigger(Struct, tag="compaction_trigger"):
    """Asks for a summary in the place of a reply."""


Item = (
    MessageItem | AgentMessage | FunctionCallItem | CustomCall | FunctionOutput | CustomOutput
    | ShellCall | ShellOutput | Reasoning | ToolsItem | CompactionItem | Trigger
)  # fmt: skip
