"""What a person sees of an episode to be judged, as sections. Pure.

Rewards are never shown: whoever sees them judges them. Blind, nothing is shown that tells one
agent, policy or sample from another.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from odradek.infra.app.datasets.messages import Row, message_of
from odradek.infra.app.history.sections import Facts, Heading, Note, Section
from odradek.infra.runtime.foreign_code import printable
from odradek.schemas.events import Conversation


def judged_sections(
    conversation: Conversation, title: str, *, blind: bool = False
) -> Iterator[Section]:
    """A conversation as it is read.

    Args:
        conversation: Of the episode.
        title: Its heading, such as `left`.
        blind: Whether to leave out what it is of.
    """
    yield Heading(title)
    if not blind:
        pairs = (
            ("episode", conversation.episode_id),
            ("agent", conversation.agent),
            ("task", conversation.task_id),
            ("item", conversation.item),
            ("sample", str(conversation.sample)),
        )
        yield Facts(tuple(pair for pair in pairs if pair[1]))
    if conversation.input is not None:
        yield Facts((("asked", _shown(_text(conversation.input))),))
    for raw in conversation.messages:
        yield Facts(_said(message_of(raw)))
    if not conversation.messages:
        yield Note("nothing was said", wrong=True)


def _shown(text: str) -> str:
    return printable(text, kept="\n\t")


def _said(message: Row) -> tuple[tuple[str, str], ...]:
    role = _shown(message["role"])
    said = [(role, _shown(message["content"]))] if message["content"] else []
    calls = message["tool_calls"] or ()
    return (
        *said,
        *(
            (f"{role} calls", _shown(f"{call['function']['name']} {call['function']['arguments']}"))
            for call in calls
        ),
    ) or ((role, ""),)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
