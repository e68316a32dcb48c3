"""The shapes of the chat completions API, as vLLM answers them. Pure: no I/O, no clock."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from odradek.trainer.engine.batcher import Generation
from odradek.trainer.engine.decode import SampleRequest, SampleResult
from odradek.trainer.errors import UnsupportedRequest

NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "top_p": (None, 1, 1.0),
    "top_k": (None, 0, -1),
    "min_p": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
    "presence_penalty": (None, 0, 0.0),
    "repetition_penalty": (None, 1, 1.0),
    "stop": (None, [], ""),
    "logit_bias": (None, {}),
}
"""Fields that would change the sampling, and the values at which they do not."""
MAX_TOP: Final = 20


@dataclass(frozen=True)
class EngineChatRequest:
    """A chat completion that was asked for."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[Any] | None
    temperature: float
    max_tokens: int | None
    n: int
    stream: bool
    usage_in_stream: bool
    logprobs: bool
    token_ids: bool
    weight_versions: bool
    answer: bool = True
    """Whether what an answer begins with follows the messages."""
    prompt: list[int] | None = None
    """Ids in place of the messages' rendering, where vLLM takes them from peers."""
    top: int = 0
    """How many of the likeliest tokens each place lists."""


def parse(body: Any, default_model: str) -> EngineChatRequest:
    """Read a request. Raises UnsupportedRequest for what the small engine cannot do."""
    if not isinstance(body, dict):
        raise UnsupportedRequest("the body must be a JSON object")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnsupportedRequest("`messages` must be a list with at least one message")
    return replace(
        options(body, default_model),
        messages=[_message(message) for message in messages],
        answer=body.get("add_generation_prompt") is not False,
        prompt=_ids(body.get("kv_transfer_params")),
    )


def options(body: dict[str, Any], default_model: str) -> EngineChatRequest:
    """Read the fields that chats and text completions share. Raises UnsupportedRequest."""
    for field, neutral in NEUTRAL.items():
        if body.get(field) not in neutral:
            raise UnsupportedRequest(
                f"the small engine samples from the whole distribution: no `{field}`"
            )
    salt = body.get("cache_salt")
    if salt is not None and (not isinstance(salt, str) or not salt):  # of a cache that it has not
        raise UnsupportedRequest("`cache_salt` must be some text")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    temperature = body.get("temperature")
    stream_options = body.get("stream_options") or {}
    return EngineChatRequest(
        model=str(body.get("model") or default_model),
        messages=[],
        tools=body.get("tools") or None,
        temperature=_number(1.0 if temperature is None else temperature, "temperature", 0, 100),
        max_tokens=None if limit is None else int(_number(limit, "max_tokens", 1, 1 << 20)),
        n=int(_number(body.get("n") or 1, "n", 1, 128)),
        stream=bool(body.get("stream")),
        usage_in_stream=(
            isinstance(stream_options, dict) and bool(stream_options.get("include_usage"))
        ),
        logprobs=bool(body.get("logprobs")),
        token_ids=bool(body.get("return_token_ids")),
        weight_versions=bool(body.get("return_weight_versions")),
        top=int(_number(body.get("top_logprobs") or 0, "top_logprobs", 0, MAX_TOP)),
    )


def _ids(params: Any) -> list[int] | None:
    ids = params.get("prompt_token_ids") if isinstance(params, dict) else None
    if ids is not None and (not isinstance(ids, list) or not ids):
        raise UnsupportedRequest(
            "`kv_transfer_params.prompt_token_ids` must be a list of token ids"
        )
    return ids


def _number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UnsupportedRequest(f"`{name}` must be a number from {low:g} to {high:g}")
    return value


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UnsupportedRequest("each message needs a `role`")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise UnsupportedRequest("the small engine reads text parts only")
        content = "".join(map(str, parts))
    if content is not None and not isinstance(content, str):
        raise UnsupportedRequest("`content` must be text")
    return {**message, "content": content or ""}


class ChatWriter:
    """Turns answers into JSON."""

    def __init__(
        self,
        request: EngineChatRequest,
        *,
        reply_id: str,
        created: int,
        prompt: list[int],
        tokenizer: Any,
    ) -> None:
        self._request = request
        self._id = reply_id
        self._created = created
        self._prompt = prompt
        self._tokenizer = tokenizer

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _logprobs(self, sampled: SampleResult, start: int, end: int) -> dict[str, Any] | None:
        """Log probabilities of tokens [start, end)."""
        if not self._request.logprobs:
            return None
        content = []
        for at in range(start, end):
            top = [self._entry(*entry) for entry in sampled.top[at]] if sampled.top else []
            entry = self._entry(sampled.ids[at], sampled.logprobs[at])
            content.append({**entry, "top_logprobs": top})
        return {"content": content}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = str(self._tokenizer.decode([token]))
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def _usage(self, answers: list[Generation]) -> dict[str, int]:
        sampled = sum(len(answer.sampled.ids) for answer in answers)
        return {
            "prompt_tokens": len(self._prompt),
            "total_tokens": len(self._prompt) + sampled,
            "completion_tokens": sampled,
        }

    def _versions(self, answer: Generation, start: int, end: int) -> dict[str, Any]:
        if not self._request.weight_versions:
            return {}
        span = {"version": answer.version, "start": start, "end": end}
        return {"weight_versions": [span]}

    def whole(self, answers: list[Generation]) -> dict[str, Any]:
        """The reply that is not streamed."""
        choices = []
        for index, answer in enumerate(answers):
            ids = answer.sampled.ids
            choice: dict[str, Any] = {
                "index": index,
                "message": {"role": "assistant", "content": self._text(ids)},
                "logprobs": self._logprobs(answer.sampled, 0, len(ids)),
                "finish_reason": answer.sampled.finish_reason,
                "stop_reason": None,
            }
            if self._request.token_ids:
                choice["token_ids"] = ids
            choices.append(choice | self._versions(answer, 0, len(ids)))
        reply: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._request.model,
            "choices": choices,
            "usage": self._usage(answers),
        }
        if self._request.token_ids:
            reply["prompt_token_ids"] = self._prompt
        return reply

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._request.model,
            "choices": choices,
        }

    def chunks(self, answers: list[Generation]) -> Iterator[dict[str, Any]]:
        """The reply as a stream: a role, one chunk a token, the last with the finish reason."""
        first = self._chunk(
            [
                {
                    "index": index,
                    "delta": {"role": "assistant", "content": ""},
                    "logprobs": None,
                    "finish_reason": None,
                }
                for index in range(len(answers))
            ]
        )
        if self._request.token_ids:
            first["prompt_token_ids"] = self._prompt
        yield first
        for index, answer in enumerate(answers):
            yield from self._tokens(index, answer)
        if self._request.usage_in_stream:
            yield self._chunk([]) | {"usage": self._usage(answers)}

    def _tokens(self, index: int, answer: Generation) -> Iterator[dict[str, Any]]:
        sampled = answer.sampled
        sent = ""
        for at, token in enumerate(sampled.ids):
            last = at == len(sampled.ids) - 1
            text = self._text(sampled.ids[: at + 1])
            choice: dict[str, Any] = {
                "index": index,
                "delta": {"content": text[len(sent) :]},
                "logprobs": self._logprobs(sampled, at, at + 1),
                "finish_reason": sampled.finish_reason if last else None,
            }
            if self._request.token_ids:
                choice["token_ids"] = [token]
            sent = text
            yield self._chunk([choice | self._versions(answer, at, at + 1)])


def sample_request_of(
    request: EngineChatRequest, prompt: list[int], *, default: int, longest: int
) -> SampleRequest:
    """Read a request. Raises UnsupportedRequest where prompt and reply do not fit the model."""
    room = longest - len(prompt)
    if room < 1 or (request.max_tokens or 0) > room:
        raise UnsupportedRequest(
            f"this model's maximum context length is {longest} tokens, but the request has "
            f"{len(prompt)} prompt tokens and asks for {request.max_tokens or 1} more"
        )
    length = request.max_tokens or min(default, room)
    return SampleRequest(prompt, request.temperature, length, request.top)
