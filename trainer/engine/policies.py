"""Which weights a policy has now: from the log, held against their digest. No torch here."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from odradek.infra.bus import BusSettings
from odradek.infra.client import subscribe
from odradek.schemas.events import Policy
from odradek.schemas.topics import POLICIES
from odradek.trainer.checkpoint import WEIGHTS, sha256_of
from odradek.trainer.errors import BadRequest


def folder_of(policy: Policy) -> Path:
    """The folder that a policy's uri names, its weights held against the digest.

    Raises BadRequest: no file uri, gone (rotated away), or other weights.
    """
    parts = urlsplit(policy.uri)
    if parts.scheme not in {"file", ""} or parts.netloc not in {"", "localhost"}:
        raise BadRequest(f"policy {policy.name} v{policy.version} is no folder: {policy.uri}")
    folder = Path(unquote(parts.path))
    file = folder / WEIGHTS
    if not file.is_file():
        raise BadRequest(f"policy {policy.name} v{policy.version}: {file} is not there")
    if policy.digest and sha256_of(file) != policy.digest:
        raise BadRequest(f"policy {policy.name} v{policy.version}: {file} has another digest")
    return folder


async def newest_policy(bus: BusSettings, name: str) -> Policy | None:
    """The last policy announced under a name, or None."""
    found = None
    async for policy in subscribe(
        POLICIES.name, since="beginning", follow=False, bus=bus, where={"name": name}
    ):
        found = policy
    return found
