"""The producer's side: signs the requests of a process with its key."""

import time
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from odradek.agents.binding import headers as names
from odradek.agents.binding.addresses import address_of
from odradek.agents.trust.assertion import sign
from odradek.agents.trust.keys import JsonWebKey, read_private
from odradek.agents.trust.settings import TrustSettings, accepts_unsigned
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError
from odradek.schemas.codec import Headers


class RequestSigner:
    """Signs requests.

    Args:
        jwk: Of the key.
        key: The key.
        prefix: Of the topics.
    """

    def __init__(self, jwk: JsonWebKey, key: Ed25519PrivateKey, *, prefix: str) -> None:
        self.jwk: Final = jwk
        self._key = key
        self._prefix = prefix

    @classmethod
    def of(cls, bus: BusSettings, settings: TrustSettings | None = None) -> Self | None:
        """The signer of this process; None where it has no key and none is needed.

        Raises:
            ProjectError: The key cannot be read, or there is none and hosts would refuse.
        """
        settings = settings or TrustSettings()
        if settings.signing_key is not None:
            return cls(*read_private(settings.signing_key), prefix=bus.topic_prefix)
        if not accepts_unsigned(settings.unsigned, bus.bootstrap_servers):
            raise ProjectError(
                "requests to agents are signed where Kafka is not on loopback: make a key with "
                "`odradek keys new`, and set ODRADEK_TRUST_SIGNING_KEY to its file"
            )
        return None

    def signed(
        self,
        agent: str,
        *,
        key: str | None,
        value: bytes | None,
        headers: Headers,
        principal: str = "",
    ) -> Headers:
        """The headers of a request with its assertion.

        Args:
            agent: Whom the request is for.
            key: Of the record.
            value: Of the record.
            headers: All others of the record.
            principal: Who asks; "": the holder of the key.
        """
        assertion = sign(
            self._key,
            self.jwk.kid,
            principal=principal or self.jwk.own,
            audience=address_of(agent, prefix=self._prefix),
            record_key=key,
            value=value,
            headers=headers,
            now=time.time(),
        )
        return (*headers, (names.ASSERTION, assertion))
