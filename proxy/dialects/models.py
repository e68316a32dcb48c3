"""Lists of models, as the clients of OpenAI, Anthropic and Google ask for them."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from odradek.proxy.errors import EngineError, NoSuchModel
from odradek.proxy.wire.body import UNREADABLE


class _List(Struct):
    data: list[dict[str, Any]] = []


def added(body: bytes, names: Iterable[str]) -> bytes:
    """The engine's list with names that the proxy maps; as it is where it cannot be read."""
    wanted = list(names)
    if not wanted:
        return body
    try:
        listed = msgspec.json.decode(body, type=dict[str, Any])
        known = msgspec.convert(listed.get("data", []), list[dict[str, Any]])
    except UNREADABLE:
        return body
    there = {model.get("id") for model in known}
    more = [{"id": name, "object": "model", "created": 0} for name in wanted if name not in there]
    return msgspec.json.encode({**listed, "data": [*known, *more]})


def told(body: bytes, wanted: str | None, dialect: str) -> bytes:
    """The engine's list, or the one model that was asked for, in a dialect's own shape.

    Raises NoSuchModel, EngineError.
    """
    try:
        known = msgspec.json.decode(body, type=_List).data
    except UNREADABLE:
        raise EngineError("the engine's list of models cannot be read") from None
    tell = {"messages": _anthropic, "gemini": _google}.get(dialect, dict)
    if wanted is not None:
        for model in known:
            if model.get("id") == wanted:
                return msgspec.json.encode(tell(model))
        raise NoSuchModel("the engine serves no model of this name", param="model")
    listed = [tell(model) for model in known]
    if dialect == "gemini":
        return msgspec.json.encode({"models": listed})
    ids = [model.get("id") for model in listed] or [None]
    return msgspec.json.encode(
        {"data": listed, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
    )


def _google(model: dict[str, Any]) -> dict[str, Any]:
    named = str(model.get("id", ""))
    length = model.get("max_model_len")
    limit = {"inputTokenLimit": length} if isinstance(length, int) and length > 0 else {}
    return {
        "name": f"models/{named}",
        "version": "1",
        "displayName": named,
        **limit,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def _anthropic(model: dict[str, Any]) -> dict[str, Any]:
    made = model.get("created")
    seconds = made if isinstance(made, int) and 0 <= made < 2**33 else 0
    return {
        "type": "model",
        "id": str(model.get("id", "")),
        "display_name": str(model.get("id", "")),
        "created_at": dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(),
    }
