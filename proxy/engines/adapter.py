"""How one kind of engine speaks the engine's surface: a small protocol, and its fake.

The surface is declared in `schemas/http/engine`. The proxy knows the surface's words only. An
adapter knows the words of its engine, and is chosen once for an engine (`recognition`).
"""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from odradek.proxy.errors import CapabilityMissing
from odradek.schemas.http.engine import MODEL, Capability, MissingCapability


class EngineAdapter(Protocol):
    """Translates between the surface and one kind of engine. Pure: no I/O, no clock."""

    name: str
    """The engine's name in logs and errors."""
    native: bool
    """Whether its words are those of the surface, so that no call and no reply is translated."""
    lacks: tuple[MissingCapability, ...]
    """What no engine of this kind can do."""
    advice: Mapping[Capability, str]
    """What to do if an engine of this kind lacks a capability that others of its kind have."""

    def path(self, route: str) -> str:
        """Its path for a path of the surface. Raises CapabilityMissing where it has none."""
        ...

    def request(self, route: str, body: bytes) -> bytes:
        """A request in its words; called only if it is not `native`."""
        ...

    def named(self, body: bytes, adapter: str) -> bytes:
        """A request of the surface that asks for a LoRA adapter, in its words for that."""
        ...

    def reply(self, route: str, body: bytes) -> bytes:
        """A whole good answer in the surface's words, or as it is where it cannot be read."""
        ...


class NativeAdapter:
    """An engine that speaks the surface as it is declared. Implements `EngineAdapter`.

    The stubs of the bench and of the tests speak it so, and any engine may.
    """

    name = "an engine"
    native = True
    lacks: tuple[MissingCapability, ...] = ()
    advice: Mapping[Capability, str] = {
        Capability.LOGPROBS: "have it give those after the temperature",
        Capability.TOKEN_IDS: "see what `odradek engine contract` prints",
    }

    def path(self, route: str) -> str:
        """The path itself."""
        return route

    def request(self, route: str, body: bytes) -> bytes:
        """The request itself."""
        del route
        return body

    def named(self, body: bytes, adapter: str) -> bytes:
        """The request with the adapter for its model."""
        return with_field(body, MODEL, adapter)

    def reply(self, route: str, body: bytes) -> bytes:
        """The answer itself."""
        del route
        return body


NATIVE: Final = NativeAdapter()

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


def with_field(body: bytes, name: str, value: str) -> bytes:
    """A request, which is a JSON object, with another value of a field."""
    fields = _fields.decode(body)
    fields[name] = Raw(_encode(value))
    return _encode(fields)


def missing(adapter: EngineAdapter, capability: Capability) -> CapabilityMissing:
    """The error of a call that needs what an engine lacks."""
    lack = next(lack for lack in adapter.lacks if lack.capability is capability)
    return CapabilityMissing(f"{adapter.name} has {lack}")
