"""Which versions of the weights sampled a reply's tokens, in the engine's own words."""

from typing import Any, Final

import msgspec

from odradek.proxy.wire.body import UNREADABLE
from odradek.schemas.events import VersionSpan
from odradek.schemas.http.reply import ServedModels, ServedVersion, WeightVersions
from odradek.schemas.http.weights import version_named

MAX_COUNT: Final = 2**53 - 1
"""Beyond it readers in other languages would round."""
UNNAMED: Final = 0
"""The version of weights that no trainer of ours has named, older than all that one has."""
LONGEST: Final = 20
"""Digits of a version that are read."""


def joined(earlier: list[WeightVersions], new: list[WeightVersions]) -> list[WeightVersions]:
    """Spans of a stream: some engines send all at the end, others send those of each chunk."""
    if not earlier or new[0].start < earlier[-1].end:
        return new
    spans = list(earlier)
    for span in new:
        last = spans[-1]
        if (last.version, last.end) == (span.version, span.start):
            spans[-1] = WeightVersions(last.version, last.start, span.end)
        else:
            spans.append(span)
    return spans


def versions(spans: list[WeightVersions] | None, n: int) -> tuple[VersionSpan, ...]:
    """The engine's spans, or none where they are not whole numbers in order over n tokens."""
    valid = []
    at = 0
    for span in spans or ():
        version = _version(span.version)
        if version is None or not at <= span.start <= span.end <= n:
            return ()
        at = span.end
        valid.append(VersionSpan(version, span.start, span.end))
    return tuple(valid)


def _version(label: Any) -> int | None:
    """The version that an engine names; None where it names none."""
    if isinstance(label, str):
        # Our trainer gives no other name: such weights are of the engine's start, as a rule.
        label = int(label) if label.isdecimal() and len(label) <= LONGEST else UNNAMED
    return label if type(label) is int and 0 <= label <= MAX_COUNT else None


def version_of(info: bytes) -> int | None:
    """The version that an engine serves, out of its answer; None if the answer has none."""
    try:
        return _version(_served.decode(info).weight_version)
    except UNREADABLE:
        return None


def newest_adapter(models: bytes, policy: str) -> int | None:
    """The newest version of a policy's adapters that an engine lists; 0 for none of them.

    None where its answer is no list of models.
    """
    try:
        listed = _models.decode(models).data
    except UNREADABLE:
        return None
    versions = [version_named(policy, model.id) for model in listed]
    return max((version for version in versions if version is not None), default=UNNAMED)


_models: Final = msgspec.json.Decoder(ServedModels)
_served: Final = msgspec.json.Decoder(ServedVersion)
