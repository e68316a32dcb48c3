"""Lists of models, as the clients of OpenAI, Anthropic and Google ask for them."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.errors import EngineError, NoSuchModel
from odradek.proxy.wire.body import UNREADABLE


def _page(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """A list as OpenAI and Anthropic page it."""
    ids = [model.get("id") for model in listed] or [None]
    return {"data": listed, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}


class ModelShape(Struct, frozen=True):
    """How a dialect lists models."""

    model: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Makes an entry of a model as the engine lists it."""
    models: Callable[[list[dict[str, Any]]], dict[str, Any]] = _page
    """Makes the list of entries that `model` has made."""


OPENAI: Final = ModelShape()


class _List(Struct):
    data: list[dict[str, Any]] = []


def added(body: bytes, names: Iterable[str]) -> bytes:
    """The engine's list with names that the proxy maps; as it is where it cannot be read."""
    mapped = list(names)
    if not mapped:
        return body
    try:
        whole = msgspec.json.decode(body, type=dict[str, Any])
        models = msgspec.convert(whole.get("data", []), list[dict[str, Any]])
    except UNREADABLE:
        return body
    there = {model.get("id") for model in models}
    more = [{"id": name, "object": "model", "created": 0} for name in mapped if name not in there]
    return msgspec.json.encode({**whole, "data": [*models, *more]})


def listed(body: bytes, name: str | None, shape: ModelShape = OPENAI) -> bytes:
    """The engine's list, or the one model that was asked for, in a dialect's own shape.

    Raises NoSuchModel, EngineError.
    """
    try:
        models = msgspec.json.decode(body, type=_List).data
    except UNREADABLE:
        raise EngineError("the engine's list of models cannot be read") from None
    if name is not None:
        for model in models:
            if model.get("id") == name:
                return msgspec.json.encode(shape.model(model))
        raise NoSuchModel("the engine serves no model of this name", param="model")
    return msgspec.json.encode(shape.models([shape.model(model) for model in models]))
