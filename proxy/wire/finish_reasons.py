"""Why a reply ended: the words of engines and gateways, in OpenAI's spelling.

A model ends its reply, meets a limit, calls a tool, or is filtered. Whatever else an engine says
(`abort`, `error`, `cancelled`, a word that nobody has heard of) is about the engine: the sample is
not what the policy would have said, so nobody may take it for a whole reply.

Words come as text in any case and with any joints, as members of an enumeration in the manner of
Python, Rust or protobuf, and inside objects or lists.
"""

from typing import Any, Final

ENDS: Final = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
"""OpenAI's words, which the log and agents get."""
STRINGS: Final = (
    "custom_stopper", "matched_stop", "matched_str", "matched_string", "stop_phrase", "stop_seq",
    "stop_sequence", "stop_sequences", "stop_str", "stop_string", "stop_strings", "stop_word",
    "stop_words", "stopped_word", "stopping_string",
)  # fmt: skip
"""Words for a reply that ended in a stop string, not at an end token."""
ALIASES: Final = {
    "stop": (
        *STRINGS, "complete", "completed", "done", "end", "end_id", "end_of_generation",
        "end_of_message", "end_of_response", "end_of_sequence", "end_of_text", "end_of_turn",
        "end_token", "end_turn", "ended", "endoftext", "eog", "eom", "eom_id", "eos", "eos_found",
        "eos_id", "eos_reached", "eos_token", "eos_token_hit", "eos_token_id", "eot", "eot_id",
        "finish", "finished", "im_end", "matched_token", "message_stop", "natural",
        "natural_stop", "normal", "stop_condition", "stop_criteria", "stop_criteria_met",
        "stop_id", "stop_token", "stop_token_id", "stop_token_ids", "stop_tokens", "stopped",
        "stopped_eos", "success", "turn_end",
    ),
    "length": (
        "context_full", "context_length", "context_length_exceeded", "context_limit",
        "context_window", "context_window_exceeded", "cutoff", "length_capped", "length_limit",
        "limit", "max_completion_tokens", "max_context", "max_context_length",
        "max_generation_length", "max_len", "max_length", "max_length_reached", "max_model_len",
        "max_model_length", "max_new_tokens", "max_output", "max_output_tokens", "max_seq_len",
        "max_seq_length", "max_sequence_length", "max_token", "max_tokens", "max_tokens_reached",
        "maximum_length", "model_context_window_exceeded", "model_length", "out_of_tokens",
        "output_limit", "repetition", "seq_len", "stopped_limit", "token_limit",
        "token_limit_reached", "truncated",
    ),
    "tool_calls": (
        "call_tool", "function_calls", "tool", "tool_call", "tool_called", "tool_calling",
        "tool_use", "tool_uses", "tools",
    ),
    "function_call": (),
    "content_filter": (
        "blacklist", "blocked", "blocklist", "censored", "content_filtered", "content_policy",
        "filtered", "guardrail_intervened", "image_safety", "language", "model_armor",
        "moderation", "prohibited_content", "recitation", "refusal", "safety", "sensitive", "spii",
    ),
}  # fmt: skip
"""OpenAI's word: those of others for it, engines and gateways among them."""
_PREFIXES: Final = ("finishreason", "stopreason", "reason", "finished", "finish")
"""What names of an enumeration begin with."""
_NAMES: Final = ("type", "reason", "finish_reason", "stop_reason", "name", "value")
"""Fields in which an object may have the word; the first that it has counts."""


def _bare(word: str) -> str:
    """A word without case and joints, so that `endTurn` is `end_turn`."""
    return "".join(filter(str.isalnum, word)).lower()


_ENDS: Final = {_bare(word): end for end, words in ALIASES.items() for word in (end, *words)}
_STRINGS: Final = frozenset(map(_bare, STRINGS))
_NONE: Final = frozenset(
    {
        "", "0", "active", "continue", "false", "generating", "inprogress", "nil", "none",
        "notfinished", "null", "running", "undefined", "unfinished", "unspecified",
    }
)  # fmt: skip
"""What some engines write while a reply goes on."""


def _key(word: str) -> str:
    """The key of a word in our tables; the bare word itself, if it is in none."""
    member = word.strip(" <>\"'").partition(": ")[0]  # of `<FinishReason.STOP: 1>`
    bare = _bare(member.replace("::", ".").rpartition(".")[2] or member)
    for prefix in ("", *_PREFIXES):
        rest = bare.removeprefix(prefix)
        if (rest and rest != bare and rest in _NONE) or rest in _ENDS:
            return rest
    return bare


def _word(value: Any) -> str:
    """The word in whatever an engine wrote; "" for none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        words = {ending(entry) for entry in value} - {None}
        return ", ".join(sorted(map(str, words)))
    if isinstance(value, dict):
        candidates = [_word(value[name]) for name in _NAMES if name in value]
        if candidates or len(value) != 1:
            return next(filter(None, candidates), "" if candidates or not value else str(value))
        return str(next(iter(value)))
    return str(value) if value else ""


def ending(value: Any) -> str | None:
    """The word in OpenAI's spelling: None while the reply goes on, itself if no model says it."""
    if value is None or (isinstance(value, str) and value in ENDS):
        return value
    word = _word(value)
    key = _key(word)
    return None if key in _NONE else _ENDS.get(key, word)


def in_string(value: Any) -> bool:
    """Whether the word says that the reply ended in a stop string."""
    return _key(_word(value)) in _STRINGS


def failure(word: str | None) -> str:
    """The fault of a reply that ended so, in one line; "" if the model ended it."""
    if word in ENDS:
        return ""
    if word is None:
        return "the engine ended its reply without a finish reason"
    return f"the engine ended its reply with {word[:100]!r}, which no model says"
