"""How a reply was sampled, read from its request: the temperature, and whether from all tokens.

One table for all dialects and engines. The proxy takes from it what to write where a client says
nothing, what to take away under `sampling = force`, and what a turn records; the assembler, whether
a reply's tokens came from the policy's own distribution. A name that no table holds may be a
sampler of an engine that we do not know: a reply under it counts as altered.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from odradek.schemas.neutral_fields import NOTED, PLAIN

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
HOTTEST: Final = 100.0
"""Above it every token is as likely as any other: a number that high is a slip."""

STRICT: Final = "tools.strict"
"""Under this name a turn records that some tool was `strict`: engines hold its arguments to a
grammar (vllm#45600)."""

UNSENT: Final = "temperature.unsent"
"""Under this name a turn records that its engine refuses to be given a temperature: nobody knows at
which one it samples."""

LIMITED: Final = frozenset(
    {"custom_logit_processor", "custom_params", "grammar", "logits_processors", STRICT, UNSENT}
)
"""Fields that alter what is sampled from, or the prompt, whatever they hold but nothing."""

Test = Callable[[Any], bool]


class Sampling(Struct, frozen=True):
    """What a reply's tokens were drawn from."""

    temperature: float | None = None
    """None where nobody recorded it."""
    altered_by: str = ""
    """Name of the field that altered the distribution at that temperature, "" if none did."""

    @property
    def trainable(self) -> bool:
        """Whether a trainer can compute the same probabilities again."""
        warm = self.temperature is None or self.temperature >= COLDEST
        return warm and not self.altered_by


def sampling_of(fields: Mapping[str, Any]) -> Sampling:
    """What a turn's `request.sampling` says, in whatever dialect its request was.

    Old turns record no more than their client said. What they leave out counts as neutral, and
    their temperature as unknown.
    """
    altered_by = next((name for name in fields if alters(name, fields)), "")
    value = fields.get("temperature")
    temperature = None if value is None else number(value)
    if value is not None and (temperature is None or not 0 <= temperature < math.inf):
        return Sampling(None, "temperature")
    return Sampling(temperature, altered_by)


def complete(fields: Mapping[str, Any]) -> bool:
    """Whether a turn that builds on this one and records nothing was sampled alike.

    Not so after turns of old proxies, which record only what their clients set.
    """
    return "temperature" in fields and fields.keys() >= NEUTRAL.keys()


def alters(name: str, fields: Mapping[str, Any]) -> bool:
    """Whether a field makes the distribution another one than the policy's at its temperature."""
    if name == "temperature" or name in PLAIN or name in NOTED:
        return False
    value = fields[name]
    if value is None:
        return False
    if name == "best_of":
        return _or_infinite(number(value)) > max(1.0, number(fields.get("n")) or 1.0)
    test = WITHIN.get(name) or _NEUTRAL.get(name, nothing)
    return not test(value)


def recorded(name: str, value: Any) -> Any:
    """A field as a turn records it; None for one that it leaves out.

    Of a field that no table holds only its name is kept: what it carries is not ours to publish.
    """
    if name in RECORDED:
        return value
    if name in WITHIN:
        return True if alters(name, {name: value}) else None
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


def _exactly(expected: float) -> Test:
    return lambda value: number(value) == expected


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def _all_tokens(value: Any) -> bool:
    """A count of tokens to draw from that leaves out none: no vocabulary has a billion."""
    count = number(value)
    return count is not None and (count <= 0 or count >= ALL)


def _absent(_: Any) -> bool:
    """A field that engines take for one as soon as it is there, however empty (`is not None`)."""
    return False


def _empty(value: Any) -> bool:
    """An object, or a list, with nothing in it; what is in it may mean something though null."""
    return value in ({}, [], "", False)


def _hollow(value: Any) -> bool:
    """Nothing, or a list of nothing."""
    return nothing(value) or (isinstance(value, list) and all(map(_hollow, value)))


def off(value: Any) -> bool:
    """A switch that is off, in a spelling that engines read as a boolean."""
    return nothing(value) or (
        value.strip().lower() in OFF if isinstance(value, str) else number(value) == 0
    )


def _on(value: Any) -> bool:
    """A switch that is on."""
    return value.strip().lower() in ON if isinstance(value, str) else number(value) == 1


def _weightless(value: Any) -> bool:
    """Biases of tokens that are all zero: an object, or pairs. `false` is a ban in some engines."""
    if isinstance(value, dict):
        biases = [*value.values()]
    elif isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value):
        biases = [bias for _, bias in value]
    else:
        return nothing(value)
    return all(bias is None or (bias is not False and number(bias) == 0) for bias in biases)


def _blank(value: Any) -> bool:
    """No word; an object says something here, however empty."""
    return isinstance(value, str) and not value


def _unforced(value: Any) -> bool:
    """A choice of tools that leaves the model its own; names of tools are objects."""
    if isinstance(value, dict) and value.keys() == {"type"}:
        value = value["type"]
    return value in ("auto", "none")


def _free(value: Any) -> bool:
    """A form of reply that is no form."""
    return nothing(value) or (isinstance(value, dict) and value.get("type") == "text")


def _ungrammatical(value: Any) -> bool:
    """Options of a grammar, without one; a grammar may be empty, and holds a reply to it."""
    if not isinstance(value, dict):
        return nothing(value)
    return all(
        entry is None or name in OPTIONS or (name not in GRAMMARS and nothing(entry))
        for name, entry in value.items()
    )


def _unbounded(value: Any) -> bool:
    """Reasoning without a budget: engines end it by force."""
    if not isinstance(value, dict) or value.get("type") == "disabled":
        return True
    return all(
        nothing(entry) or not ("budget" in name or "tokens" in name)
        for name, entry in value.items()
    )


def _whole(value: Any) -> bool:
    """Fields within a field, which some engines read as their own: none of them alters."""
    if not isinstance(value, dict):
        return nothing(value)
    return value.get("temperature") is None and not any(alters(name, value) for name in value)


ALL: Final = 2**30
"""A `top_k` from which on no token is left out; SGLang writes it for all of them."""
OFF: Final = frozenset({"false", "f", "0", "off", "n", "no", ""})
ON: Final = frozenset({"true", "t", "1", "on", "y", "yes"})
"""Words that engines take for booleans, as pydantic does."""
GRAMMARS: Final = frozenset({
    "choice", "grammar", "json", "json_object", "regex", "structural_tag",
})  # fmt: skip
"""Of `structured_outputs`: each holds a reply to a form, as soon as it is not null."""
OPTIONS: Final = frozenset({
    "backend", "disable_additional_properties", "disable_any_whitespace", "disable_fallback",
    "whitespace_pattern",
})  # fmt: skip
"""The rest of it."""
_NEUTRAL: Final[dict[str, Test]] = {
    **dict.fromkeys(("top_p", "typical_p", "typical", "tfs_z"), _at_least(1)),
    **dict.fromkeys(
        (
            "min_p", "top_a", "top_n_sigma", "min_tokens", "min_new_tokens", "min_length",
            "xtc_probability", "dry_multiplier", "mirostat", "mirostat_mode", "dynatemp_range",
            "smoothing_factor", "no_repeat_ngram_size", "eta_cutoff", "epsilon_cutoff",
            "penalty_alpha",
        ),
        _at_most(0),
    ),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "diversity_penalty"), _exactly(0)),
    **dict.fromkeys(
        (
            "repetition_penalty", "repeat_penalty", "encoder_repetition_penalty",
            "length_penalty", "num_beams", "beam_width", "guidance_scale",
        ),
        _exactly(1),
    ),
    **dict.fromkeys(
        (
            "allowed_token_ids", "ebnf", "guided_choice", "guided_grammar", "guided_json",
            "guided_json_object", "guided_regex", "json_schema", "regex", "structural_tag",
            "truncate_prompt_tokens",
        ),
        _absent,
    ),
    **dict.fromkeys(
        ("thinking_budget", "thinking_token_budget", "reasoning_budget"), _at_most(-1)
    ),
    **dict.fromkeys(("ignore_eos", "use_beam_search", "watermark", "watermarking"), off),
    **dict.fromkeys(("bad_words", "bad_words_token_ids", "lora_path"), _hollow),
    **dict.fromkeys(("structured_outputs", "guided_decoding_params"), _ungrammatical),
    "top_k": _all_tokens,
    "do_sample": _on,
    "format": _blank,
    "logit_bias": _weightless,
    "vllm_xargs": _empty,
    "tool_choice": _unforced,
    "function_call": _unforced,
    "response_format": _free,
    "thinking": _unbounded,
    "reasoning": _unbounded,
}  # fmt: skip
"""Fields that alter the distribution unless their value passes; others, unless they are empty."""

WITHIN: Final = dict.fromkeys(("extra_body", "nvext", "options", "parameters"), _whole)
"""Fields that hold others. Of them, too, a turn records only that they alter the distribution: what
else they carry may be a secret."""

RECORDED: Final = NOTED | LIMITED | _NEUTRAL.keys() | {"temperature", "best_of"}
"""Fields whose values a turn records."""
