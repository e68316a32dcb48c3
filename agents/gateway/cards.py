"""The cards of all agents, as `a2a.cards` has them now."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from a2a.types import AgentCard, AgentInterface
from a2a.types.a2a_pb2 import SecurityScheme

from odradek.agents.binding import VERSION
from odradek.agents.cards.registry import KnownCard, read_card
from odradek.infra.bus import BusSettings, Record, follow, to_end
from odradek.schemas.topics import CARDS

SCHEME: Final = "bearer"
"""The name of the security scheme on cards."""
JSONRPC: Final = "JSONRPC"
REST: Final = "HTTP+JSON"
GRPC: Final = "GRPC"
REST_PATH: Final = "/v1"
"""Where an agent's REST endpoints are, below its own address."""


class CardDirectory:
    """Follows the agents' cards.

    Args:
        bus: Where Kafka is.
        changed: Called with an agent's name when its card has changed.
    """

    def __init__(self, bus: BusSettings, changed: Callable[[str], None]) -> None:
        self._bus = bus
        self._changed = changed
        self._cards: dict[str, KnownCard] = {}

    @property
    def agents(self) -> list[str]:
        """The names of all agents that have a card, sorted."""
        return sorted(self._cards)

    def get(self, agent: str) -> KnownCard | None:
        """An agent's card."""
        return self._cards.get(agent)

    async def follow(self, ready: asyncio.Event) -> None:
        """Read the cards for ever; `ready` is set once those of now are known."""
        async for record in to_end(self._bus, CARDS.name):
            self._take(record)
        ready.set()
        async for record in follow(self._bus, CARDS.name):
            self._take(record)

    def _take(self, record: Record) -> None:
        agent = record.key or ""
        if record.value is None:
            if self._cards.pop(agent, None) is not None:
                self._changed(agent)
            return
        published = read_card(record)
        if published is None:
            return
        known = self._cards.get(agent)
        if known is None or known.card != published.card:
            self._cards[agent] = published
            self._changed(agent)


def at_gateway(
    card: AgentCard,
    address: str,
    *,
    grpc_address: str,
    agent: str,
    security: SecurityScheme | None = None,
    earlier: Iterable[AgentInterface] = (),
) -> AgentCard:
    """A card that also names the gateway's addresses of its agent, HTTP first.

    Signatures are left out: they are of the card without these addresses.

    Args:
        card: As the agent published it.
        address: The agent's address at the gateway.
        grpc_address: The gateway's address for gRPC; "": it serves none.
        agent: The agent's name, which gRPC's clients give as the tenant.
        security: What its clients send as credentials; None: nothing.
        earlier: Addresses for clients of an earlier version of A2A; they come last.
    """
    shown = AgentCard()
    shown.CopyFrom(card)
    own = list(shown.supported_interfaces)
    del shown.supported_interfaces[:]
    del shown.signatures[:]
    for binding, url in ((JSONRPC, address), (REST, address + REST_PATH)):
        shown.supported_interfaces.append(
            AgentInterface(url=url, protocol_binding=binding, protocol_version=VERSION)
        )
    if grpc_address:
        shown.supported_interfaces.append(
            AgentInterface(
                url=grpc_address, protocol_binding=GRPC, protocol_version=VERSION, tenant=agent
            )
        )
    shown.supported_interfaces.extend([*own, *earlier])
    if security is not None:
        shown.security_schemes[SCHEME].CopyFrom(security)
        shown.security_requirements.add().schemes[SCHEME].SetInParent()
    return shown
