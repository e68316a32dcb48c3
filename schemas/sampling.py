"""How a reply was sampled, read from its request: the temperature, and whether from all tokens.

One table for all dialects and engines. The proxy takes from it what to write where a client says
nothing, what to take away under `sampling = force`, and what a turn records; the assembler, whether
a reply's tokens came from the policy's own distribution. A name that no table holds may be a
sampler of an engine that we do not know: a reply under it counts as bent.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

NEUTRAL: Final[dict[str, int]] = {
    "top_p": 1,
    "top_k": -1,
    "min_p": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
}
"""Fields for which engines, or a model's generation config, have defaults of their own, with the
values at which they change nothing. Temperature, whose value is the trainer's, is the seventh."""

COLDEST: Final = 0.05
"""Below it a reply is as good as greedy: no gradient tells anything of it."""

NOTED: Final = frozenset(
    {
        "max_completion_tokens", "max_tokens", "n", "n_predict", "reasoning_effort", "seed", "stop",
        "stop_regex", "stop_token_ids",
    }
)  # fmt: skip
"""Fields that a turn records although they leave the distribution as it is: where a reply ends at a
stop, each of its tokens was drawn from all of them."""

PLAIN: Final = frozenset(
    {
        # OpenAI, and what its and Anthropic's clients add.
        "anthropic_version", "audio", "client_metadata", "echo", "functions", "logprobs",
        "messages", "metadata", "modalities", "model", "moderation", "parallel_tool_calls",
        "prediction", "prompt", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream",
        "stream_options", "suffix", "tools", "top_logprobs", "user", "verbosity",
        "web_search_options",
        # vLLM: prompts, what is returned, and where it runs.
        "add_generation_prompt", "add_special_tokens", "cache_salt", "chat_template",
        "chat_template_kwargs", "continue_final_message", "data_parallel_rank", "documents",
        "ec_transfer_params", "enable_thinking", "include_reasoning",
        "include_stop_str_in_output", "kv_transfer_params", "logprob_token_ids",
        "media_io_kwargs", "mm_processor_kwargs", "priority", "prompt_embeds", "prompt_logprobs",
        "repetition_detection", "request_id", "return_mm_kwargs", "return_prompt_text",
        "return_token_ids", "return_token_offsets", "return_tokens_as_token_ids",
        "return_weight_versions", "routed_experts_prompt_start", "session_id",
        "skip_special_tokens", "spaces_between_special_tokens", "stream_interval",
        "truncation_side",
        # SGLang.
        "bootstrap_host", "bootstrap_port", "bootstrap_room", "disagg_prefill_dp_rank",
        "extra_key", "images_config", "input_ids", "max_dynamic_patch", "min_dynamic_patch",
        "ngram_corpus_id", "no_stop_trim", "return_cached_tokens_details",
        "return_hidden_states", "return_meta_info", "return_prompt_token_ids",
        "return_routed_experts", "rid", "routed_dp_rank", "routed_experts_start_len",
        "separate_reasoning", "stream_reasoning", "use_audio_in_video",
        # llama.cpp, Ollama and other servers; parts of samplers that are off without their own.
        "cache_prompt", "dry_allowed_length", "dry_base", "dry_penalty_last_n",
        "dry_sequence_breakers", "dynatemp_exponent", "id_slot", "keep_alive", "mirostat_eta",
        "mirostat_tau", "n_keep", "n_probs", "reasoning_format", "repeat_last_n",
        "return_progress", "return_tokens", "think", "timings_per_token", "tool_stream",
        "vl_high_resolution_images", "xtc_threshold",
    }
)  # fmt: skip
"""Fields that no turn records: they are the conversation, or say how it travels."""

STRICT: Final = "tools.strict"
"""Under this name a turn records that some tool was `strict`: engines hold its arguments to a
grammar (vllm#45600)."""

LIMITED: Final = frozenset(
    {
        "allowed_token_ids", "bad_words", "bad_words_token_ids", "custom_logit_processor",
        "custom_params", "ebnf", "grammar", "guided_choice", "guided_decoding_backend",
        "guided_decoding_params", "guided_grammar", "guided_json", "guided_json_object",
        "guided_regex", "guided_whitespace_pattern", "ignore_eos", "json_schema", "logit_bias",
        "logits_processors", "lora_path", "regex", "structural_tag", "structured_outputs",
        "thinking_token_budget", "truncate_prompt_tokens", "use_beam_search", "vllm_xargs",
        "watermark", "watermarking", STRICT,
    }
)  # fmt: skip
"""Fields that bend or cut what is sampled from, or the prompt, whatever they hold but nothing."""

Test = Callable[[Any], bool]


class Sampling(Struct, frozen=True):
    """What a reply's tokens were drawn from."""

    temperature: float | None = None
    """None where nobody recorded it."""
    bent: str = ""
    """The field for which it was not the whole distribution at that temperature, "" if it was."""

    @property
    def trainable(self) -> bool:
        """Whether a trainer can compute the same probabilities again."""
        warm = self.temperature is None or self.temperature >= COLDEST
        return warm and not self.bent


def sampling_of(said: Mapping[str, Any]) -> Sampling:
    """What a turn's `request.sampling` says, in whatever dialect its request was.

    Old turns record no more than their client said. What they leave out counts as neutral, and
    their temperature as unknown.
    """
    bent = next((name for name in said if bends(name, said)), "")
    value = said.get("temperature")
    temperature = None if value is None else number(value)
    if value is not None and (temperature is None or not 0 <= temperature < math.inf):
        return Sampling(None, "temperature")
    return Sampling(temperature, bent)


def complete(said: Mapping[str, Any]) -> bool:
    """Whether all is said, so that a turn on this one which says nothing was sampled alike.

    Not so the turns of old proxies, which record no more than their clients said.
    """
    return "temperature" in said and said.keys() >= NEUTRAL.keys()


def bends(name: str, said: Mapping[str, Any]) -> bool:
    """Whether a field makes the distribution another one than the policy's at its temperature."""
    if name == "temperature" or name in PLAIN or name in NOTED:
        return False
    value = said[name]
    if value is None:
        return False
    if name == "best_of":
        return _or_infinite(number(value)) > max(1.0, number(said.get("n")) or 1.0)
    test = _NEUTRAL.get(name, nothing)
    return not test(value)


def recorded(name: str, value: Any) -> Any:
    """A field as a turn records it; None for one that it leaves out.

    Of a field that no table holds only its name is kept: what it carries is not ours to publish.
    """
    if name in RECORDED:
        return value
    return None if name in PLAIN or nothing(value) else True


def nothing(value: Any) -> bool:
    """Whether a value is as good as none: null, false, empty, or an object of such values."""
    if isinstance(value, dict):
        return all(map(nothing, value.values()))
    return value is None or value is False or value in ("", [])


def number(value: Any) -> float | None:
    """A number as engines read it, which take text and booleans for numbers; None for others."""
    if not isinstance(value, (bool, int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _at_least(bound: float) -> Test:
    return lambda value: (number(value) or -math.inf) >= bound


def _at_most(bound: float) -> Test:
    return lambda value: _or_infinite(number(value)) <= bound


def _exactly(wanted: float) -> Test:
    return lambda value: number(value) == wanted


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def _unforced(value: Any) -> bool:
    """A choice of tools that leaves the model its own; names of tools are objects."""
    return value in ("auto", "none")


def _free(value: Any) -> bool:
    """A form of reply that is no form."""
    return nothing(value) or (isinstance(value, dict) and value.get("type") == "text")


def _unbounded(value: Any) -> bool:
    """Reasoning without a budget: engines end it by force."""
    if not isinstance(value, dict):
        return True
    return all(
        nothing(entry) or not ("budget" in name or "tokens" in name)
        for name, entry in value.items()
    )


_NEUTRAL: Final[dict[str, Test]] = {
    **dict.fromkeys(("top_p", "typical_p", "typical", "tfs_z"), _at_least(1)),
    **dict.fromkeys(
        (
            "top_k", "min_p", "top_a", "top_n_sigma", "min_tokens", "min_new_tokens", "min_length",
            "xtc_probability", "dry_multiplier", "mirostat", "mirostat_mode", "dynatemp_range",
            "smoothing_factor", "no_repeat_ngram_size", "eta_cutoff", "epsilon_cutoff",
        ),
        _at_most(0),
    ),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "diversity_penalty"), _exactly(0)),
    **dict.fromkeys(
        (
            "repetition_penalty", "repeat_penalty", "encoder_repetition_penalty",
            "length_penalty", "num_beams", "do_sample",
        ),
        _exactly(1),
    ),
    "tool_choice": _unforced,
    "function_call": _unforced,
    "response_format": _free,
    "thinking": _unbounded,
    "reasoning": _unbounded,
}  # fmt: skip
"""Fields that bend unless their value passes; others, unless they hold nothing."""

RECORDED: Final = NOTED | LIMITED | _NEUTRAL.keys() | {"temperature", "best_of"}
"""Fields whose values a turn records."""
