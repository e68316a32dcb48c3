"""Why a reply ended: the words of engines and gateways, in OpenAI's spelling.

A model ends its reply, meets a limit, calls a tool, or is filtered. Whatever else an engine says
(`abort`, `error`, `cancelled`, a word that nobody has heard of) is about the engine: the sample is
not what the policy would have said, so nobody may take it for a whole reply. vllm#57082
"""

from typing import Final

ENDS: Final = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
"""OpenAI's words, which the log and agents get."""
ALIASES: Final = {
    "stop": (
        "complete", "completed", "end", "end_of_sequence", "end_of_turn", "end_turn", "endoftext",
        "eos", "eos_found", "eos_token", "eos_token_id", "finished", "stop_sequence", "stop_str",
        "stop_string", "stop_token", "stop_tokens", "stop_word", "stopped",
    ),
    "length": (
        "limit", "max_length", "max_new_tokens", "max_output_tokens", "max_token", "max_tokens",
        "model_context_window_exceeded", "model_length", "repetition", "token_limit",
    ),
    "tool_calls": ("tool_call", "tool_use", "tool_uses"),
    "content_filter": (
        "content_filtered", "guardrail_intervened", "prohibited_content", "recitation", "refusal",
        "safety",
    ),
}  # fmt: skip
"""OpenAI's word: those of others for it (TGI, Mistral, Anthropic, Gemini, Cohere, llama.cpp)."""
_ENDS: Final = {word: end for end, words in ALIASES.items() for word in (end, *words)} | {
    "function_call": "function_call"
}
STRINGS: Final = frozenset({"stop_sequence", "stop_str", "stop_string", "stop_word"})
"""Words for a reply that ended in a stop string, not at an end token."""
_NONE: Final = frozenset({"", "null", "none", "not_finished", "finish_reason_unspecified"})
"""What some write while a reply goes on."""


def ending(word: str | None) -> str | None:
    """The word in OpenAI's spelling: None while the reply goes on, itself if no model says it."""
    if word is None or word in ENDS:
        return word
    known = word.strip().lower().replace("-", "_").replace(" ", "_")
    return None if known in _NONE else _ENDS.get(known, word)


def failure(word: str | None) -> str:
    """What is wrong with a reply that ended so, in one line; "" if a model ended it."""
    if word in ENDS:
        return ""
    if word is None:
        return "the engine ended its reply without a finish reason"
    return f"the engine ended its reply with {word[:100]!r}, which no model says"
