"""What an agent's owner says of it on its card: a file of JSON or TOML with A2A's own fields."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from a2a.types import AgentCard
from a2a.utils.errors import InvalidParamsError
from a2a.utils.proto_utils import validate_proto_required_fields
from google.protobuf.json_format import ParseDict, ParseError

from odradek.agents.cards.card import card
from odradek.infra.errors import ProjectError

FIELDS: Final = (
    "name",
    "description",
    "version",
    "provider",
    "skills",
    "defaultInputModes",
    "defaultOutputModes",
    "documentationUrl",
    "iconUrl",
)
"""Fields of an AgentCard (A2A 4.4.1) that are the owner's; all others tell what is served."""
MODE: Final = re.compile(r"(\*/\*|[\w.+-]+/(\*|[\w.+-]+))")
"""A media type, or a range of them (RFC 9110, 12.5.1) for an agent that takes any."""


def read_profile(path: Path) -> AgentCard:
    """The owner's fields of a card.

    Args:
        path: A file of TOML if its name ends so, else of JSON.

    Raises:
        ProjectError: It cannot be read, or is no such card; the error names the field and what to
            write.
    """
    try:
        text = path.read_text(encoding="utf-8")
        fields = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ProjectError(f"cannot read the agent's card {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ProjectError(f"{path} is no {kind}: {error}") from None
    try:
        return profile_of(fields)
    except ValueError as error:
        raise ProjectError(f"{path}: {error}") from None


def profile_of(fields: Any) -> AgentCard:
    """The owner's fields of a card. Pure. Raises ValueError, which names the field."""
    if not isinstance(fields, dict):
        raise ValueError(f"a card is an object with fields such as {', '.join(FIELDS[:3])}")  # noqa: TRY004
    for name, value in fields.items():
        if value in ("", [], {}, None):
            raise ValueError(f"{name!r} is empty: leave it out, or fill it")
        if name not in FIELDS:
            raise ValueError(
                f"{name!r} is not for this file, or no field of a card: write "
                f"{', '.join(FIELDS)}; what the agent serves is filled in"
            )
    try:
        profile = ParseDict(fields, AgentCard())
    except ParseError as error:
        raise ValueError(f"it is no A2A AgentCard: {error}") from None
    _check_complete(profile)
    _check_values(profile)
    return profile


def _check_complete(profile: AgentCard) -> None:
    """Raise ValueError for a skill or a provider without what A2A requires."""
    try:
        validate_proto_required_fields(card("agent", prefix="", profile=profile))
    except InvalidParamsError as error:
        missing = (error.data or {}).get("errors", [])
        names = ", ".join(str(entry["field"]) for entry in missing)
        raise ValueError(f"A2A requires {names or error.message}: add it") from None


def _check_values(profile: AgentCard) -> None:
    """Raise ValueError for what is no media type, no URL, or an id that is there twice."""
    modes = [*profile.default_input_modes, *profile.default_output_modes]
    for skill in profile.skills:
        modes += [*skill.input_modes, *skill.output_modes]
    for mode in modes:
        if not MODE.fullmatch(mode):
            raise ValueError(f"{mode!r} is no media type: write one as text/plain")
    urls = {
        "documentationUrl": profile.documentation_url,
        "iconUrl": profile.icon_url,
        "provider.url": profile.provider.url,
    }
    for name, url in urls.items():
        if url and not _is_web(url):
            raise ValueError(f"{name} {url!r} is no address: it begins with https:// or http://")
    ids = [skill.id for skill in profile.skills]
    if len(set(ids)) < len(ids):
        raise ValueError("two skills have the same id: rename one")


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and url.isprintable()
