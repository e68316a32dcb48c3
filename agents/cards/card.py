"""An agent's card: how A2A clients find it."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentSkill,
)

from odradek.agents.binding import BINDING, EXTENSION, VERSION
from odradek.agents.binding.addresses import address_of

TEXT: Final = "text/plain"
JSON: Final = "application/json"


def card(
    agent: str, *, prefix: str, push: bool = False, profile: AgentCard | None = None
) -> AgentCard:
    """The card of an agent.

    Args:
        agent: The agent's name.
        prefix: What the agent's topics carry before their names.
        push: Whether its host keeps push notification configs.
        profile: What its owner says of it: its fields take the place of those made here.
    """
    made = AgentCard(
        name=agent,
        description=f"The agent {agent}, reached over Kafka.",
        version="1",
        supported_interfaces=[
            AgentInterface(
                url=address_of(agent, prefix=prefix),
                protocol_binding=BINDING,
                protocol_version=VERSION,
            )
        ],
        capabilities=AgentCapabilities(
            streaming=True,
            push_notifications=push,
            extensions=[
                AgentExtension(uri=EXTENSION, description="Makes a message a sample of a task.")
            ],
        ),
        default_input_modes=[JSON, TEXT],
        default_output_modes=[TEXT],
        skills=[
            AgentSkill(
                id="rollout",
                name="rollout",
                description="Plays one sample of a task.",
                tags=["rollout"],
            )
        ],
    )
    return over(made, profile) if profile is not None else made


def extended(public: AgentCard, profile: AgentCard) -> AgentCard:
    """The card for authenticated callers: the public one with the fields of another profile.

    Its signatures are left out: they are of the public card.
    """
    made = over(public, profile)
    del made.signatures[:]
    return made


def accepted(kind: str, modes: Iterable[str]) -> bool:
    """Whether a media type is one of a card's, or lies in one of its ranges, as `text/*`."""
    return any(fnmatchcase(kind, mode.lower()) for mode in modes)


def over(card: AgentCard, profile: AgentCard) -> AgentCard:
    """A copy of a card in which the fields that a profile has stand in place of its own."""
    made = AgentCard()
    made.CopyFrom(card)
    fields: list[tuple[Any, Any]] = profile.ListFields()
    for field, _ in fields:
        made.ClearField(field.name)
    made.MergeFrom(profile)
    return made
