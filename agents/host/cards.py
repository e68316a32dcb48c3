"""The cards that a host answers for: the public one, and the one for authenticated callers."""

from typing import Self

import msgspec
from a2a.types import AgentCard
from a2a.utils.errors import InvalidRequestError, UnsupportedOperationError

from odradek.agents.cards.card import card, extended
from odradek.agents.cards.profile import read_profile
from odradek.agents.cards.signatures import CardSigner
from odradek.agents.settings import AgentSettings


class OwnCards(msgspec.Struct, frozen=True):
    """An agent's cards, signed where there is a key."""

    public: AgentCard
    extended: AgentCard | None = None
    """For authenticated callers (A2A section 3.1.11); None: there is none."""

    def for_caller(self, principal: str) -> AgentCard:
        """The extended card, for a caller who has signed the request.

        Raises:
            UnsupportedOperationError: There is none, as the public card says (A2A section 3.3.4).
            InvalidRequestError: Nobody has signed it.
        """
        if self.extended is None:
            raise UnsupportedOperationError("this agent has no extended card")
        if not principal:
            raise InvalidRequestError("the extended card is for callers who sign their requests")
        return self.extended

    @classmethod
    def of(cls, settings: AgentSettings, *, prefix: str) -> Self:
        """As the host is set. Raises ProjectError for a file that cannot be used."""
        profile = read_profile(settings.card) if settings.card else None
        public = card(settings.name, prefix=prefix, push=settings.push, profile=profile)
        more = None
        if settings.extended_card is not None:
            public.capabilities.extended_agent_card = True
            more = extended(public, read_profile(settings.extended_card))
        if settings.card_key is None:
            return cls(public, more)
        sign = CardSigner.from_file(settings.card_key).signed
        return cls(sign(public), sign(more) if more is not None else None)
