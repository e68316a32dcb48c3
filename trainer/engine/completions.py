"""The shapes of the text completions API, as vLLM answers them. Pure: no I/O, no clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from odradek.trainer.engine import chat
from odradek.trainer.engine.batcher import Generation
from odradek.trainer.errors import UnsupportedRequest


@dataclass(frozen=True)
class EngineCompletionRequest:
    """Text completions that were asked for."""

    prompts: list[Any]
    """Each text, or ids."""
    options: chat.EngineChatRequest
    """What completions and chats share."""
    logprobs: bool


def parse(body: Any, default_model: str) -> EngineCompletionRequest:
    """Read a request. Raises UnsupportedRequest for what the small engine cannot do."""
    if not isinstance(body, dict):
        raise UnsupportedRequest("the body must be a JSON object")
    for name in ("echo", "suffix", "prompt_logprobs"):
        if body.get(name):
            raise UnsupportedRequest(f"the small engine knows no `{name}`")
    prompt = body.get("prompt")
    prompts = [prompt]
    if isinstance(prompt, list) and not all(isinstance(part, int) for part in prompt):
        prompts = prompt
    options = chat.options(body, default_model)
    return EngineCompletionRequest(prompts, options, body.get("logprobs") is not None)


class CompletionWriter:
    """Turns answers into JSON: the choices of the first prompt, then those of the next."""

    def __init__(
        self,
        request: EngineCompletionRequest,
        *,
        reply_id: str,
        created: int,
        prompts: list[list[int]],
        tokenizer: Any,
    ) -> None:
        self._request = request
        self._head = {
            "id": reply_id,
            "object": "text_completion",
            "created": created,
            "model": request.options.model,
        }
        self._prompts = prompts
        self._tokenizer = tokenizer

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _choice(self, index: int, answer: Generation, start: int, end: int) -> dict[str, Any]:
        """Tokens [start, end) of a choice."""
        options, sampled = self._request.options, answer.sampled
        ids, last = sampled.ids[start:end], end == len(sampled.ids)
        before = self._text(sampled.ids[:start])
        choice: dict[str, Any] = {
            "index": index,
            "text": self._text(sampled.ids[:end])[len(before) :],
            "logprobs": self._logprobs(ids, sampled.logprobs[start:end], len(before)),
            "finish_reason": sampled.finish_reason if last else None,
            "stop_reason": None,
        }
        if options.token_ids:
            prompt = self._prompts[index // options.n]
            choice |= {"token_ids": ids, "prompt_token_ids": prompt if start == 0 else None}
        if options.weight_versions:
            choice["weight_versions"] = [{"version": answer.version, "start": start, "end": end}]
        return choice

    def _logprobs(self, ids: list[int], logprobs: list[float], at: int) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        tokens = [str(self._tokenizer.decode([token])) for token in ids]
        offsets = [at + sum(map(len, tokens[:place])) for place in range(len(tokens))]
        return {
            "text_offset": offsets,
            "token_logprobs": logprobs,
            "tokens": tokens,
            "top_logprobs": [],
        }

    def _usage(self, answers: list[Generation]) -> dict[str, int]:
        sampled = sum(len(answer.sampled.ids) for answer in answers)
        prompts = sum(map(len, self._prompts))
        return {
            "prompt_tokens": prompts,
            "total_tokens": prompts + sampled,
            "completion_tokens": sampled,
        }

    def whole(self, answers: list[Generation]) -> dict[str, Any]:
        """The reply that is not streamed."""
        choices = [
            self._choice(index, answer, 0, len(answer.sampled.ids))
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": self._usage(answers)}

    def chunks(self, answers: list[Generation]) -> Iterator[dict[str, Any]]:
        """The reply as a stream: one chunk a token, the last with the finish reason."""
        for index, answer in enumerate(answers):
            for at in range(len(answer.sampled.ids)):
                yield {**self._head, "choices": [self._choice(index, answer, at, at + 1)]}
        if self._request.options.usage_in_stream:
            yield {**self._head, "choices": [], "usage": self._usage(answers)}
