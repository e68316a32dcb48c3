"""The end of an episode: a host's request to the proxy, and the proxy's reply."""

from typing import Final

from msgspec import Struct

from odradek.schemas.events import Outcome

SEAL: Final = "/e/{episode}/seal"
"""The route, POST, with a host's token (`scope` "host")."""


class SealRequest(Struct, frozen=True):
    """Sent by the host, once the agent is done or given up."""

    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    """Why it did not complete; the proxy keeps the first 2,000 characters."""
    children: tuple[str, ...] = ()
    """Episodes of other agents whose replies its agent had; the proxy passes them on."""


class SealReply(Struct, frozen=True):
    """Sent by the proxy once EpisodeSealed is in the log; the same reply to a repeated seal."""

    writer: str = ""
    """The proxy process that wrote the episode's turns."""
    n_turns: int = 0
    """How many turns that writer wrote: readers wait for so many."""
    outcome: str = ""
    """An `Outcome`. The proxy says `incomplete` for an episode of which it lost a turn."""
