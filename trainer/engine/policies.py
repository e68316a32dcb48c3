"""Which weights a policy has now: from the log, held against their digest. No torch here."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from odradek.infra.bus import BusSettings
from odradek.infra.client import subscribe
from odradek.schemas.events import LORA, Policy
from odradek.schemas.topics import POLICIES
from odradek.trainer.adapters.shape import ADAPTER_WEIGHTS
from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.commit.tensor_files import INDEX, WEIGHTS, digest_of
from odradek.trainer.errors import UnsupportedRequest


def folder_of(policy: Policy) -> Path:
    """The folder that a policy's uri names, its weights held against the digest.

    Raises UnsupportedRequest: no plain file uri, gone (rotated away), no digest, or other weights.
    """
    parts = urlsplit(policy.uri)
    folder = Path(unquote(parts.path))
    local = parts.scheme in {"file", ""} and parts.netloc in {"", "localhost"}
    plain = folder.is_absolute() and ".." not in folder.parts and "\0" not in str(folder)
    if not (local and plain and parts.query == parts.fragment == ""):
        raise UnsupportedRequest(
            f"policy {policy.name} v{policy.version} is no folder: {policy.uri}"
        )
    if not policy.digest:
        raise UnsupportedRequest(
            f"policy {policy.name} v{policy.version} has no digest to hold it against"
        )
    files = (ADAPTER_WEIGHTS,) if is_adapter(policy) else (WEIGHTS, INDEX)
    if not any((folder / file).is_file() for file in files):
        raise UnsupportedRequest(
            f"policy {policy.name} v{policy.version}: {folder / files[0]} is not there"
        )
    held = sha256_of(folder / ADAPTER_WEIGHTS) if is_adapter(policy) else digest_of(folder)
    if held != policy.digest:
        raise UnsupportedRequest(
            f"policy {policy.name} v{policy.version}: the weights in {folder} have another digest"
        )
    return folder


def is_adapter(policy: Policy) -> bool:
    """Whether a policy's weights are an adapter of the model that the engine was started with."""
    return policy.format == LORA


async def newest_policy(bus: BusSettings, name: str) -> Policy | None:
    """The last policy announced under a name, or None."""
    newest = None
    async for policy in subscribe(
        POLICIES.name, since="beginning", follow=False, bus=bus, where={"name": name}
    ):
        newest = policy
    return newest
