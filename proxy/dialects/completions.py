"""OpenAI's text completions, upstream of which is the engine's own route for them.

Recorded in the form of chats: the prompt as a user's message, the text as the assistant's. Each
choice is a turn; with several prompts each turn has its own.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from odradek.proxy.dialects import chat, errors
from odradek.proxy.dialects.chat import Chunks, common_fields, trim
from odradek.proxy.dialects.dialect import (
    ParsedRequest,
    RequestRules,
    SamplingFields,
    field,
    fingerprint,
    shallow,
    unreadable,
)
from odradek.proxy.dialects.surface import Surface
from odradek.proxy.errors import BadRequest, LimitExceeded, ProxyError
from odradek.proxy.wire import sse
from odradek.proxy.wire.body import NULL, UNREADABLE
from odradek.schemas.http.engine import COMPLETIONS as COMPLETIONS_ROUTE
from odradek.schemas.http.reply import Choice, Logprob, Logprobs, ReplyBody, TextBody, TextChoice

_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_prompt: Final = msgspec.json.Decoder(str | list[str | int | list[int]])
_encode: Final = msgspec.json.Encoder().encode
_body: Final = msgspec.json.Decoder(TextBody)


def read(data: bytes) -> ReplyBody:
    """A reply, or a chunk, as one of a chat."""
    body = _body.decode(data)
    choices = [_choice(choice) for choice in body.choices]
    return ReplyBody(id=body.id, choices=choices, usage=body.usage, error=body.error)


def _choice(choice: TextChoice) -> Choice:
    message = {"role": "assistant", "content": choice.text}
    values = choice.logprobs.token_logprobs if choice.logprobs else None
    # A token without a value, such as the first of an echoed prompt, spoils all of them.
    logprobs: list[Logprob | None] = [Logprob(value) for value in values or ()]
    return Choice(
        index=choice.index,
        message=Raw(_encode(message)),
        delta=message,
        finish_reason=choice.finish_reason,
        stop_reason=choice.stop_reason,
        token_ids=choice.token_ids,
        prompt_token_ids=choice.prompt_token_ids,
        logprobs=None if values is None else Logprobs(logprobs),
        weight_versions=choice.weight_versions,
        error=choice.error,
    )


class CompletionRequest(SamplingFields, kw_only=True):
    """OpenAI text completions."""

    prompt: str | list[Any]
    n: int | None = None
    max_tokens: int | None = None
    echo: bool | None = None
    logprobs: int | None = None


class Completions:
    """Text completions."""

    name: Final = "completions"
    path: Final = COMPLETIONS_ROUTE.path
    ping: Final = sse.COMMENT

    def read(self, data: bytes) -> ReplyBody:
        """The reply, or chunk, as one of a chat."""
        return read(data)

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request and force the fields of a turn into it. Raises BadRequest."""
        shallow(body, terms.limits)
        try:
            fields = _fields.decode(body)
            prompts = _prompts(field(fields, "prompt", _prompt))
            logprobs = fields.get("logprobs", NULL) not in (NULL, Raw(b"false"))
            flags = common_fields(fields, terms)
        except UNREADABLE as error:
            raise unreadable(error) from None
        if flags["n"] * len(prompts) > terms.limits.n:
            raise LimitExceeded(f"prompt: at most {terms.limits.n} choices in all", param="prompt")
        chat.demand(fields, flags, logprobs=fields["logprobs"] if logprobs else Raw(b"0"))
        messages = [Raw(_encode({"role": "user", "content": prompt})) for prompt in prompts]
        return ParsedRequest(
            dialect=self,
            body=_encode(fields),
            digest=fingerprint(body),
            messages=messages[:1],
            prompts=tuple(messages) if len(messages) > 1 else (),
            logprobs=logprobs or chat.is_plain(flags),
            **flags,
        )

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The reply, trimmed."""
        return trim(reply, request)

    def stream(self, request: ParsedRequest) -> Chunks:
        """Chunks, trimmed."""
        return Chunks(request)

    def error(self, error: ProxyError) -> bytes:
        """OpenAI's shape."""
        return errors.openai(error)

    def refusal(self, body: bytes, status: int) -> bytes:
        """The engine's own words, as long as they have OpenAI's shape."""
        return errors.openai_of(body, status)


def _prompts(prompt: str | list[str | int | list[int]]) -> list[Any]:
    """Each prompt as a message's content; for a prompt of ids, the turn's prompt has the ids."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or all(isinstance(entry, int) for entry in prompt):
        return [None]
    if any(isinstance(entry, int) for entry in prompt):
        raise BadRequest("prompt: text, a list of texts, ids, or lists of ids", param="prompt")
    return [entry if isinstance(entry, str) else None for entry in prompt]


COMPLETIONS: Final = Completions()
COMPLETIONS_SURFACE: Final = Surface(calls={"/completions": COMPLETIONS}, body=CompletionRequest)
