"""A request that is sent again, signed anew for the principal for whom it was signed before."""

from typing import Final, Self

import msgspec

from odradek.agents.binding import headers as names
from odradek.agents.binding.addresses import address_of
from odradek.agents.errors import AssertionRefused
from odradek.agents.trust.assertion import issued_at, key_id, verify
from odradek.agents.trust.keys import KeyRing, read_private
from odradek.agents.trust.settings import TrustSettings
from odradek.agents.trust.signer import RequestSigner
from odradek.infra.bus import BusSettings, Record
from odradek.schemas.codec import header
from odradek.schemas.topics import A2A_REQUESTS

REQUESTS: Final = A2A_REQUESTS.name.removesuffix("{agent}")


class SignatureRenewal:
    """Signs requests anew whose signature was genuine, and leaves all others as they are.

    A dead letter may be a forgery. So nobody gets a principal, or the right to send samples, that
    the request's own signature did not have.

    Args:
        signer: Signs.
        ring: The keys of producers.
        prefix: Of the topics.
    """

    def __init__(self, signer: RequestSigner, ring: KeyRing, *, prefix: str) -> None:
        self._signer = signer
        self._ring = ring
        self._prefix = prefix

    @classmethod
    def of(cls, bus: BusSettings, settings: TrustSettings | None = None) -> Self | None:
        """The renewal by this process's keys; None where it lacks one. Raises ProjectError."""
        settings = settings or TrustSettings()
        if settings.signing_key is None or settings.verification_keys is None:
            return None
        signer = RequestSigner(*read_private(settings.signing_key), prefix=bus.topic_prefix)
        return cls(signer, KeyRing(settings.verification_keys), prefix=bus.topic_prefix)

    def renewed(self, record: Record) -> Record:
        """A request with a signature of now; the record itself where that would say too much.

        Args:
            record: As its agent is to get it.
        """
        assertion = header(record.headers, names.ASSERTION)
        agent = record.topic.removeprefix(REQUESTS)
        if not assertion or agent == record.topic:
            return record
        rest = tuple(pair for pair in record.headers if pair[0] != names.ASSERTION)
        try:
            known = self._ring.get(key_id(assertion))
            if known is None or (self._signer.jwk.samples and not known.jwk.samples):
                return record
            claims = verify(
                assertion,
                known,
                audience=address_of(agent, prefix=self._prefix),
                record_key=record.key,
                value=record.value,
                headers=record.headers,
                moment=issued_at(assertion),
            )
        except AssertionRefused:
            return record
        if not self._signer.jwk.speaks_for(claims.sub):
            return record
        signed = self._signer.signed(
            agent, key=record.key, value=record.value, headers=rest, principal=claims.sub
        )
        return msgspec.structs.replace(record, headers=signed)
