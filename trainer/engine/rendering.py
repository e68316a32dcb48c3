"""From messages and text to token ids, as vLLM's `/tokenize` and `/render` tell them."""

import uuid
from typing import Any

from jinja2 import TemplateError

from odradek.trainer.engine import chat
from odradek.trainer.errors import UnsupportedRequest


class Renderer:
    """A model's tokenizer and chat template.

    Args:
        tokenizer: Of the model.
        name: Under which the model is listed.
        longest: Tokens of its context.
    """

    def __init__(self, tokenizer: Any, *, name: str, longest: int) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._longest = longest

    def prompt(self, request: chat.EngineChatRequest) -> list[int]:
        """The prompt of a chat: the ids that came with it, else what the template makes of it."""
        if request.prompt is None:
            return self.messages(request.messages, request.tools, answer=request.answer)
        self._check_ids(request.prompt)
        return request.prompt

    def messages(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, *, answer: bool = True
    ) -> list[int]:
        """Ids of messages; with `answer` those that an answer begins with follow."""
        try:
            ids = self._tokenizer.apply_chat_template(
                messages,
                tools=tools,
                add_generation_prompt=answer,
                tokenize=True,
                return_dict=False,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise UnsupportedRequest(
                f"the chat template refuses these messages: {error}"
            ) from error
        return [int(token) for token in ids]

    def text(self, prompt: Any, *, special: bool = True) -> list[int]:
        """Ids of a text completion's prompt: of text, or ids as they are."""
        if isinstance(prompt, str):
            ids = self._tokenizer.encode(prompt, add_special_tokens=special)
            prompt = [int(token) for token in ids]
        if not isinstance(prompt, list) or not prompt:
            raise UnsupportedRequest(
                "`prompt` must be text, ids, or a list of either, and not empty"
            )
        self._check_ids(prompt)
        return list(prompt)

    def _check_ids(self, ids: Any) -> None:
        size = len(self._tokenizer)
        if not all(type(token) is int and 0 <= token < size for token in ids):
            raise UnsupportedRequest(f"token ids must be whole numbers from 0 to {size - 1}")

    def tokenized(self, body: Any) -> dict[str, Any]:
        """The answer of `/tokenize`."""
        if not isinstance(body, dict):
            raise UnsupportedRequest("the body must be a JSON object")
        if "messages" in body:
            request = chat.parse(body, self._name)
            ids = self.messages(request.messages, request.tools, answer=request.answer)
        elif isinstance(body.get("prompt"), str):
            ids = self.text(body["prompt"], special=body.get("add_special_tokens", True) is True)
        else:
            raise UnsupportedRequest("`prompt` must be text, or `messages` a list")
        strings = None
        if body.get("return_token_strs"):
            strings = self._tokenizer.convert_ids_to_tokens(ids)
        return {
            "count": len(ids),
            "max_model_len": self._longest,
            "tokens": ids,
            "token_strs": strings,
        }

    def rendered(self, body: Any) -> dict[str, Any]:
        """The answer of `/v1/chat/completions/render`: ids and sampling, as vLLM passes them on."""
        request = chat.parse(body, self._name)
        ids = self.messages(request.messages, request.tools, answer=request.answer)
        return {
            "request_id": f"chatcmpl-{uuid.uuid4().hex}",
            "token_ids": ids,
            "model": request.model,
            "stream": request.stream,
            "sampling_params": {
                "n": request.n,
                "temperature": request.temperature,
                "max_tokens": request.max_tokens,
            },
        }
