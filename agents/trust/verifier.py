"""The host's side: who asks, or why a request is refused."""

import time
from typing import Self

import msgspec

from odradek.agents.binding.addresses import address_of
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.errors import AssertionRefused
from odradek.agents.trust.assertion import key_id, verify
from odradek.agents.trust.keys import KeyRing
from odradek.agents.trust.settings import TrustSettings, accepts_unsigned
from odradek.infra.bus import BusSettings, Record
from odradek.infra.errors import ProjectError


class RequestVerifier:
    """Verifies requests to an agent.

    Args:
        ring: The keys of producers; None: there are none.
        audience: The agent's address.
        unsigned: Whether requests without an assertion are accepted.
    """

    def __init__(self, ring: KeyRing | None, *, audience: str, unsigned: bool) -> None:
        self._ring = ring
        self._audience = audience
        self._unsigned = unsigned

    @classmethod
    def of(cls, agent: str, bus: BusSettings, settings: TrustSettings | None = None) -> Self:
        """The verifier of an agent's host.

        Raises:
            ProjectError: A key cannot be read, or there is none and every request would be refused.
        """
        settings = settings or TrustSettings()
        folder = settings.verification_keys
        unsigned = accepts_unsigned(settings.unsigned, bus.bootstrap_servers)
        if folder is None and not unsigned:
            raise ProjectError(
                "requests must be signed where Kafka is not on loopback: set "
                "ODRADEK_TRUST_VERIFICATION_KEYS to the folder of public keys that `odradek keys "
                "new` writes, or ODRADEK_TRUST_UNSIGNED=accept where you trust whoever can write"
            )
        ring = KeyRing(folder) if folder is not None else None
        audience = address_of(agent, prefix=bus.topic_prefix)
        return cls(ring, audience=audience, unsigned=unsigned)

    def verified(self, record: Record, called: RequestHeaders) -> RequestHeaders:
        """A request's headers with its principal. Raises AssertionRefused.

        An assertion is held against the moment at which the broker appended the record, so a
        request may wait for its agent, and none can be appended again later. Where the topic has
        the producer's times, which may be made up, it is held against the present.
        """
        if not called.assertion:
            if self._unsigned:
                return called
            raise AssertionRefused("unsigned", "this host takes signed requests only")
        kid = key_id(called.assertion)
        known = self._ring.get(kid) if self._ring is not None else None
        if known is None:
            raise AssertionRefused("unknown_key", f"there is no key {kid[:64]!r}")
        claims = verify(
            called.assertion,
            known,
            audience=self._audience,
            record_key=record.key,
            value=record.value,
            headers=record.headers,
            moment=record.timestamp if record.appended else time.time(),
        )
        return msgspec.structs.replace(called, principal=claims.sub, may_sample=known.jwk.samples)


def check_sample(called: RequestHeaders) -> None:
    """Raise AssertionRefused for a sample of a training task whose key may send none."""
    if not called.may_sample:
        raise AssertionRefused("no_samples", "its key may not send samples of tasks")
