"""`.odradek/` of a project: what `odradek up` keeps there for itself and for other terminals."""

import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from odradek.agents.trust.key_files import PUBLIC, write_pair
from odradek.agents.trust.settings import TrustSettings, accepts_unsigned
from odradek.infra.app.project.processes import RunAddresses
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Raise ProjectError where the block cannot write or read there."""
    try:
        yield
    except OSError as error:
        raise ProjectError(
            f"cannot use {error.filename or path}: {error.strerror}; a project runs in a folder "
            "that its user can write"
        ) from error


def token_keys(work: Path) -> str:
    """The signing keys: the environment's, else the project's own, made once."""
    if keys := os.environ.get("ODRADEK_TOKEN_KEYS"):
        return keys
    path = work / "token-key"
    with writable(path):
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        return path.read_text(encoding="utf-8").strip()


def request_keys(work: Path, bus: BusSettings) -> dict[str, str]:
    """Variables of the keys by which requests are signed; none where none are needed.

    The environment's keys are taken, else the project's own, made once.
    """
    trust = TrustSettings()
    own = trust.signing_key or trust.verification_keys
    if own or accepts_unsigned(trust.unsigned, bus.bootstrap_servers):
        return {}
    folder = work / "keys"
    private, public = folder / "dispatcher.json", folder / PUBLIC
    with writable(folder):
        if not (private.exists() and public.exists()):
            private, public = write_pair(folder, "dispatcher", samples=True)
    return {
        "ODRADEK_TRUST_SIGNING_KEY": str(private.absolute()),
        "ODRADEK_TRUST_VERIFICATION_KEYS": str(public.absolute()),
    }


def write_environment(work: Path, bus: BusSettings, places: RunAddresses) -> None:
    """`.odradek/env`: what another terminal sources to reach this run."""
    environment = {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "ODRADEK_PROXY_URL": places.proxy_url,
        "ODRADEK_TOKEN_KEYS": places.token_keys,
        **places.request_keys,
    }
    if bus.topic_partitions:
        environment["ODRADEK_TOPIC_PARTITIONS"] = str(bus.topic_partitions)
    path = work / "env"
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    with writable(path):
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
