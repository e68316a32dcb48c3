"""Lists of models, as OpenAI's and Anthropic's clients ask for them."""

import datetime as dt
from typing import Any

import msgspec
from msgspec import Struct

from odradek.proxy.body import UNREADABLE
from odradek.proxy.errors import EngineError, NoSuchModel


class _List(Struct):
    data: list[dict[str, Any]] = []


def told(body: bytes, wanted: str | None, *, anthropic: bool) -> bytes:
    """The engine's list, or the one model that was asked for. Raises NoSuchModel, EngineError."""
    try:
        known = msgspec.json.decode(body, type=_List).data
    except UNREADABLE:
        raise EngineError("the engine's list of models cannot be read") from None
    if anthropic:
        known = [_anthropic(model) for model in known]
    if wanted is None:
        ids = [model.get("id") for model in known] or [None]
        return msgspec.json.encode(
            {"data": known, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
        )
    for model in known:
        if model.get("id") == wanted:
            return msgspec.json.encode(model)
    raise NoSuchModel("the engine serves no model of this name", param="model")


def _anthropic(model: dict[str, Any]) -> dict[str, Any]:
    made = model.get("created")
    seconds = made if isinstance(made, int) and 0 <= made < 2**33 else 0
    return {
        "type": "model",
        "id": str(model.get("id", "")),
        "display_name": str(model.get("id", "")),
        "created_at": dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(),
    }
