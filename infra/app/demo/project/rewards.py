"""Rewards: functions over whole conversations. Raising is an error event, not a zero."""

from odradek.schemas import Conversation


def well_formed(conversation: Conversation) -> float:
    """1 if every reply is a guess, else 0."""
    return float(all(reply.text in {"1", "2", "3"} for reply in conversation.replies))
