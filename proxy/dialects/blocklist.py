"""Fields that an agent may not send to an engine, in any dialect.

Other fields that we do not know pass: engines learn new ones. These make an engine unpack tensors,
run a template or a function of the caller's, or speak with a host of the caller's, and have done so
in the wild. What an agent says is data: it must not reach the engine's innards.
"""

from typing import Final

import msgspec
from msgspec import Raw

from odradek.proxy.errors import Unsupported
from odradek.schemas.http.engine import CARRIED

REFUSED: Final = {
    "prompt_embeds": "tensors are not taken",  # CVE-2025-62164
    "chat_template": "templates are the engine's own",
    CARRIED: "an engine's peers are its operator's to name",
    "logits_processors": "functions are the engine's own",
}
"""Field: why."""
RENDERING: Final = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    }
)
"""Arguments of the rendering itself, which `chat_template_kwargs` would overwrite: `tokenize` stops
the engine's loop for all callers (CVE-2025-62426). Other names are the template's own."""

_kwargs: Final = msgspec.json.Decoder(dict[str, Raw] | None)


def refuse(fields: dict[str, Raw]) -> None:
    """Hold a request's fields against the list. Raises Unsupported."""
    for name in REFUSED.keys() & fields.keys():
        if bytes(fields[name]) != b"null":
            raise Unsupported(f"{name}: {REFUSED[name]}", param=name)
    if (kwargs := fields.get("chat_template_kwargs")) is not None:
        _refuse_rendering(kwargs)
    if (messages := fields.get("messages")) is not None:
        _refuse_tensors(bytes(messages))


def _refuse_rendering(raw: Raw) -> None:
    try:
        arguments = _kwargs.decode(raw) or {}
    except msgspec.ValidationError:
        raise Unsupported("chat_template_kwargs: an object", param="chat_template_kwargs") from None
    if wrong := RENDERING & arguments.keys():
        field = f"chat_template_kwargs.{min(wrong)}"
        raise Unsupported(f"{field}: the rendering is the engine's own", param=field)


def _refuse_tensors(messages: bytes) -> None:
    """Parts such as `image_embeds` are tensors, too."""
    # Escapes can spell any name, so messages with escapes are parsed, too.
    escaped = messages.find(b"\\") >= 0 and messages.find(b"\\u") >= 0
    if not escaped and messages.find(b"_embeds") < 0:
        return
    for place, message in enumerate(msgspec.json.decode(messages)):
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind.endswith("_embeds"):
                field = f"messages[{place}].content"
                raise Unsupported(f"{field}: {kind}: tensors are not taken", param=field)
