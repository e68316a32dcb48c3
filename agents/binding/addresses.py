"""An agent's address for this binding, as its card gives it."""

from typing import Final

from odradek.agents.errors import UnknownAddress

SCHEME: Final = "kafka:///"


def address_of(agent: str, *, prefix: str) -> str:
    """The address of an agent whose topics carry `prefix`."""
    return f"{SCHEME}{prefix}/{agent}" if prefix else f"{SCHEME}{agent}"


def agent_at(url: str) -> str:
    """The agent's name in its address. Raises UnknownAddress for an address of another kind."""
    if not url.startswith(SCHEME):
        raise UnknownAddress(f"{url!r} is no address on Kafka: those begin with {SCHEME}")
    return url.removeprefix(SCHEME).rsplit("/", maxsplit=1)[-1]
