"""SGLang: its words for what the surface says. Pure.

Follows SGLang's documentation and its OpenAI routes as of autumn 2026. Ids of prompt and reply come
with `return_token_ids`, which its chat route takes in whole replies only; so it is asked for whole
replies, and a stream becomes one chunk. Left out on purpose: `/generate`, which would need a
tokenizer and parsers of tool calls and reasoning in the proxy, and ids in `sglext`, whose streams
may lose log probabilities while a parser holds text back.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.engines.adapter import missing, with_field
from odradek.schemas.http import engine
from odradek.schemas.http.engine import Capability, MissingCapability

MODEL_INFO: Final = ("/model_info", "/get_model_info")
"""Where it says what it is; the second is the older name."""
UNREAD: Final = ("stream_options", engine.WEIGHT_VERSIONS, engine.CARRIED)
"""Fields of the surface that it does not have."""
FALSE: Final = Raw(b"false")

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


class SglangInfo(Struct):
    """What we read of its model's info."""

    model_path: str
    is_generation: bool


class SglangMetadata(Struct):
    """What a reply says of the weights that sampled it."""

    weight_version: Any = None
    """Their name as the reply ended."""
    weight_versions: list[dict[str, Any]] | None = None
    """Their spans, as newer engines give them: those of the first choice."""


_info: Final = msgspec.json.Decoder(SglangInfo)


class SglangAdapter:
    """Implements `EngineAdapter`.

    Args:
        info: Which of `MODEL_INFO` it has.
    """

    name = "SGLang"
    native = False
    lacks: tuple[MissingCapability, ...] = (
        MissingCapability(
            Capability.STREAMS,
            "nothing to do: the line is kept alive meanwhile",
        ),
        MissingCapability(
            Capability.RENDERING, 'leave `continuation` at "render", or serve the policy with vLLM'
        ),
        MissingCapability(
            Capability.COUNTING, "have agents go by the usage of replies, or use vLLM"
        ),
    )
    advice: Mapping[Capability, str] = {
        Capability.LOGPROBS: "start SGLang without SGLANG_RETURN_ORIGINAL_LOGPROB",
        Capability.TOKEN_IDS: "use an SGLang that has `return_token_ids` (from July 2026 on)",
    }

    def __init__(self, info: str = MODEL_INFO[0]) -> None:
        self._paths = {
            engine.CHAT.path: engine.CHAT.path,
            engine.COMPLETIONS.path: engine.COMPLETIONS.path,
            engine.MODELS.path: engine.MODELS.path,
            # Its own /health samples a token, which takes a second, and fails while it is paused.
            engine.HEALTH.path: info,
            engine.VERSION.path: info,
        }

    def path(self, route: str) -> str:
        """Its path for a path of the surface. Raises CapabilityMissing where it has none."""
        if (path := self._paths.get(route)) is not None:
            return path
        lacking = Capability.RENDERING if route == engine.RENDER.path else Capability.COUNTING
        raise missing(self, lacking)

    def request(self, route: str, body: bytes) -> bytes:
        """The request for a whole reply."""
        del route
        fields = _fields.decode(body)
        for name in UNREAD:
            fields.pop(name, None)
        if "stream" in fields:
            fields["stream"] = FALSE
        return _encode(fields)

    def named(self, body: bytes, adapter: str) -> bytes:
        """The request with the adapter beside its model."""
        return with_field(body, "lora_path", adapter)

    def reply(self, route: str, body: bytes) -> bytes:
        """The reply with stop strings and versions where the surface has them."""
        del route
        try:
            value = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return body
        choices = value.get("choices") if isinstance(value, dict) else None
        if not isinstance(choices, list) or not all(isinstance(entry, dict) for entry in choices):
            return body
        for choice in choices:
            if isinstance(matched := choice.get("matched_stop"), str):
                choice["stop_reason"] = matched
        if len(choices) == 1:
            choices[0]["weight_versions"] = _spans(value.get("metadata"), choices[0])
        return _encode(value)


def recognized(path: str, answer: bytes) -> SglangAdapter | None:
    """The adapter of an engine that answers one of `MODEL_INFO` so, if it is an SGLang."""
    try:
        _info.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return SglangAdapter(path)


KIND: Final = (MODEL_INFO, recognized)
"""For `recognition`: the paths that only an SGLang has, and its recognizer."""


def _spans(metadata: Any, choice: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Which version sampled which token of the only choice; None if that is not known.

    A name without spans is the name of the weights at the reply's end. A number was given by a
    trainer, so the first tokens may be of the weights before. Any other name is from the engine's
    start.
    """
    try:
        parsed = msgspec.convert(metadata, SglangMetadata)
    except msgspec.ValidationError:
        return None
    if parsed.weight_versions is not None:
        return parsed.weight_versions
    ids, name = choice.get("token_ids"), parsed.weight_version
    if isinstance(name, str) and not name.isdecimal() and isinstance(ids, list):
        return [{"version": name, "start": 0, "end": len(ids)}]
    return None
