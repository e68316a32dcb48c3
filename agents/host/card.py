"""An agent's card: how A2A clients find it."""

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentSkill,
)

from odradek.agents.binding import BINDING, EXTENSION, VERSION
from odradek.agents.binding.addresses import address_of


def card(agent: str, *, prefix: str, push: bool = False) -> AgentCard:
    """The card of an agent whose topics carry `prefix`, and that may take push configs."""
    return AgentCard(
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
        default_input_modes=["application/json", "text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(
                id="rollout",
                name="rollout",
                description="Plays one sample of a task.",
                tags=["rollout"],
            )
        ],
    )
