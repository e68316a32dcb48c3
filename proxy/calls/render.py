"""Makes a call's prompt from its episode's ids, with the engine's own template: `bridge`.

The proxy has no tokenizer. It asks the engine for three renderings of the conversation, and sends
the ids with the chat request itself, where the engine takes them in place of its own rendering. So
tool calls, reasoning and streams are the engine's as ever. A call whose prompt cannot be made so
goes out as it came.
"""

import asyncio
import hashlib
from typing import Any, Final

import msgspec
from msgspec import Raw

from odradek.proxy.calls.call import ModelCall
from odradek.proxy.engines.pool import Pool
from odradek.proxy.episodes.prefix_reuse import PromptSource, Reason, Renderings, bridge, rendered
from odradek.proxy.errors import EngineError
from odradek.proxy.wire import media
from odradek.proxy.wire.body import UNREADABLE
from odradek.schemas.arrays import ID_BYTES, pack_ids, unpack_ids
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.http.engine import (
    CARRIED,
    CHAT,
    LOGPROBS,
    RENDER,
    TOKEN_IDS,
    WEIGHT_VERSIONS,
    CarriedPrompt,
)
from odradek.schemas.http.reply import RenderedPrompt

RENDER_S: Final = 5.0
"""How long the renderings may take: they need no GPU."""
SHAPE: Final = (
    "model", "tools", "functions", "chat_template_kwargs", "documents", "reasoning_effort",
    "add_special_tokens", "response_format",
)  # fmt: skip
"""Fields that a template reads beside the messages."""
UNASKED: Final = (
    "stream", "stream_options", "top_logprobs", "n", LOGPROBS, TOKEN_IDS, WEIGHT_VERSIONS,
)  # fmt: skip
"""Fields that no rendering needs."""
FALSE: Final = Raw(b"false")
TRUE: Final = Raw(b"true")
NONE: Final = Raw(b'"none"')
LIMITS: Final = ("max_completion_tokens", "max_tokens")

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


_rendering: Final = msgspec.json.Decoder(RenderedPrompt)


class PromptBuilder:
    """Makes prompts from ids that an episode's turns have already.

    Args:
        engine: Whose template it is; it is asked as the call itself will be.
    """

    def __init__(self, engine: Pool) -> None:
        self._engine = engine

    async def prepare(self, call: ModelCall) -> None:
        """Note how a call's prompt comes about and, where its prompt could be made, its ids."""
        if call.path != CHAT.path:
            return
        fields = _fields.decode(call.request.body)
        source = await self._source(call, fields)
        source.shape = _shape(fields)
        source.limit = _limit(call.request.sampling)
        call.prompt_source = source
        if source.sent:
            ids = unpack_ids(source.sent).tolist()
            fields[CARRIED] = Raw(_encode(CarriedPrompt(ids)))
            call.body = _encode(fields)

    async def _source(self, call: ModelCall, fields: dict[str, Raw]) -> PromptSource:
        messages = call.request.messages
        match = call.episode.branches.reply(messages)
        if match is None:
            return _rendered(Reason.NO_EARLIER_REPLY)
        leaf, end = match
        if end.shape != _shape(fields):
            return _rendered(Reason.INPUTS_CHANGED)
        if _prefills(fields):
            return _rendered(Reason.PREFILL)
        if call.request.media or media.first(messages) is not None:
            return _rendered(Reason.MEDIA)
        renderings = await self._renderings(call, fields, end.messages)
        if renderings is None:
            # Whatever it is, the call itself will meet it again, and tell the agent.
            return _rendered(Reason.NOT_RENDERED)
        ids = leaf.ids[: end.end * ID_BYTES]
        return bridge(ids, end.start, renderings, closed=end.closed)

    async def _renderings(
        self, call: ModelCall, fields: dict[str, Raw], n: int
    ) -> Renderings | None:
        """The first n messages, without and with the last of them, and all messages."""
        plain = {name: value for name, value in fields.items() if name not in UNASKED}
        messages = call.request.messages
        part = {**plain, "add_generation_prompt": FALSE}
        try:
            async with asyncio.timeout(RENDER_S):
                before, reply, whole = await asyncio.gather(
                    self._render(call, {**part, "messages": messages[: n - 1]}),
                    self._render(call, {**part, "messages": messages[:n]}),
                    self._render(call, plain),
                )
        except TimeoutError:
            return None
        if before is None or reply is None or whole is None:
            return None
        return Renderings(before=before, reply=reply, whole=whole)

    async def _render(self, call: ModelCall, body: dict[str, Any]) -> bytes | None:
        try:
            async with await self._engine.ask(
                RENDER.path, _encode(body), call.traceparent, episode=call.episode.episode_id
            ) as answer:
                rendering = await answer.read()
            if answer.status != 200:
                return None
            return pack_ids(_rendering.decode(rendering).token_ids)
        except (EngineError, InvalidRecord, *UNREADABLE):
            return None


def _rendered(reason: Reason) -> PromptSource:
    return PromptSource(continuation=rendered(reason))


def _shape(fields: dict[str, Raw]) -> bytes:
    # An engine may leave the tools out of the prompt where none is to be called.
    no_tools = NONE == fields.get("tool_choice")
    inputs = [no_tools, *((name, bytes(fields[name])) for name in SHAPE if name in fields)]
    return hashlib.sha256(repr(inputs).encode()).digest()[:16]


def _prefills(fields: dict[str, Raw]) -> bool:
    return TRUE == fields.get("continue_final_message") or FALSE == fields.get(
        "add_generation_prompt"
    )


def _limit(sampling: dict[str, Any]) -> int | None:
    for name in LIMITS:
        if isinstance(limit := sampling.get(name), int):
            return limit
    return None
