"""Rows of words in the forms that TRL reads (its docs/source/dataset_formats.md). Pure.

A message keeps its role, its text, and the calls and results of tools. Text comes as a string or as
parts; of parts the text is joined, and what is no text (an image) is left out and counted by who
asks.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from odradek.infra.app.datasets.preferences import WantedEpisode, stated
from odradek.schemas.events import Conversation

Row = dict[str, Any]
REPLY: Final = "assistant"


def message_of(raw: Any) -> Row:
    """A message of the chat completions API as a row holds it: the same fields in each."""
    message = raw if isinstance(raw, dict) else {}
    calls = message.get("tool_calls") or []
    return {
        "role": str(message.get("role") or REPLY),
        "content": text_of(message.get("content")),
        "tool_calls": [_call(call) for call in calls if isinstance(call, dict)] or None,
        "tool_call_id": _optional(message.get("tool_call_id")),
        "name": _optional(message.get("name")),
    }


def _call(call: Row) -> Row:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": {"name": str(function.get("name") or ""), "arguments": arguments},
    }


def _optional(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def text_of(content: Any) -> str:
    """The text of a message's content."""
    if isinstance(content, list):
        return "".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return content if isinstance(content, str) else ""


def split(messages: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """What the agent was given before the policy's first reply, and everything from there on."""
    first = next(
        (at for at, message in enumerate(messages) if message["role"] == REPLY), len(messages)
    )
    return list(messages[:first]), list(messages[first:])


def _history(conversation: Conversation) -> list[Row]:
    """The history that ends with a conversation's last reply."""
    return [message_of(message) for message in conversation.messages]


def sft_row(conversation: Conversation, wanted: WantedEpisode) -> Row | None:
    """A row of supervised fine-tuning; None where the policy never replied."""
    messages = _history(conversation)
    if not split(messages)[1]:
        return None
    return {"messages": messages, **_about(conversation, wanted)}


def kto_row(conversation: Conversation, wanted: WantedEpisode) -> Row | None:
    """A row of unpaired preferences; None where the policy never replied."""
    prompt, completion = split(_history(conversation))
    if not completion:
        return None
    return {
        "prompt": prompt,
        "completion": completion,
        "label": wanted.role == "chosen",
        **_about(conversation, wanted),
    }


def dpo_row(
    chosen: tuple[Conversation, WantedEpisode], rejected: tuple[Conversation, WantedEpisode]
) -> Row | None:
    """A row of paired preferences; None where the two were not asked the same thing."""
    prompt, better = split(_history(chosen[0]))
    other, worse = split(_history(rejected[0]))
    if prompt != other or not better or not worse:
        return None
    return {
        "prompt": prompt,
        "chosen": better,
        "rejected": worse,
        "task_id": chosen[1].task_id,
        "chosen_episode": chosen[0].episode_id,
        "rejected_episode": rejected[0].episode_id,
        "chosen_reward": chosen[1].reward,
        "rejected_reward": rejected[1].reward,
    }


def _about(conversation: Conversation, wanted: WantedEpisode) -> Row:
    return {
        "episode_id": conversation.episode_id,
        "task_id": wanted.task_id,
        "agent": conversation.agent,
        "reward": stated(wanted.reward),
    }
