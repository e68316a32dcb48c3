"""Fields of requests that leave the distribution of a reply whole, and fields that do not."""

from odradek.schemas.sampling import NEUTRAL

TOOL = {"type": "function", "function": {"name": "look"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "r", "schema": {}}}

WHOLE = [
    {}, {"temperature": 1.0}, {"temperature": 0.7}, {"temperature": None}, NEUTRAL,
    {"top_p": 1}, {"top_p": 1.0}, {"top_p": "1.0"}, {"top_p": None}, {"typical_p": 1},
    {"tfs_z": 1.0}, {"top_k": -1}, {"top_k": 0}, {"top_k": None}, {"top_k": "0"},
    {"min_p": 0}, {"min_p": 0.0}, {"min_p": None}, {"top_a": 0}, {"top_n_sigma": -1},
    {"presence_penalty": 0}, {"frequency_penalty": 0.0}, {"frequency_penalty": "0"},
    {"repetition_penalty": 1}, {"repetition_penalty": 1.0}, {"repeat_penalty": 1},
    {"length_penalty": 1.0}, {"logit_bias": None}, {"logit_bias": {}}, {"logit_bias": []},
    {"response_format": None}, {"response_format": {"type": "text"}}, {"tool_choice": "auto"},
    {"tool_choice": "none"}, {"tool_choice": None}, {"function_call": "auto"},
    {"function_call": "none"}, {"structured_outputs": None}, {"structured_outputs": {}},
    {"structured_outputs": {"json": None, "regex": None}}, {"guided_json": None},
    {"guided_regex": ""}, {"grammar": ""}, {"bad_words": []}, {"bad_words": None},
    {"allowed_token_ids": None}, {"min_tokens": 0}, {"min_tokens": None}, {"min_new_tokens": 0},
    {"use_beam_search": False}, {"ignore_eos": False}, {"vllm_xargs": {}}, {"watermark": False},
    {"best_of": 1}, {"best_of": None}, {"best_of": 4, "n": 4}, {"best_of": 1, "n": 4},
    {"do_sample": True}, {"num_beams": 1}, {"mirostat": 0}, {"xtc_probability": 0},
    {"dry_multiplier": 0.0}, {"dynatemp_range": 0}, {"truncate_prompt_tokens": None},
    {"thinking_token_budget": None}, {"thinking": {"type": "enabled"}},
    {"thinking": {"type": "enabled", "budget_tokens": None}}, {"reasoning": {"effort": "high"}},
    # Where a reply ends, and from which draw, bends nothing.
    {"seed": 7}, {"n": 8}, {"stop": "x"}, {"stop": ["x"]}, {"stop_token_ids": [3]},
    {"max_tokens": 5}, {"max_completion_tokens": 5}, {"reasoning_effort": "low"},
    # A name that nobody knows, with nothing in it.
    {"new_sampler": None}, {"new_sampler": False}, {"new_sampler": {"a": None}}, {"new": ""},
]  # fmt: skip
BENT = [
    {"top_p": 0.9}, {"top_p": 0}, {"top_p": "0.95"}, {"top_p": 1e-9}, {"top_p": [1]},
    {"typical_p": 0.5}, {"tfs_z": 0.9}, {"top_k": 1}, {"top_k": 50}, {"top_k": "20"},
    {"top_k": 10**9}, {"top_k": {}}, {"min_p": 0.05}, {"min_p": "0.05"}, {"top_a": 0.1},
    {"top_n_sigma": 1.0}, {"presence_penalty": 0.1}, {"presence_penalty": -2},
    {"frequency_penalty": 1e-3}, {"repetition_penalty": 1.05}, {"repetition_penalty": 0.9},
    {"repeat_penalty": 1.1}, {"no_repeat_ngram_size": 3}, {"length_penalty": 0.8},
    {"logit_bias": {"5": 1}}, {"logit_bias": [[5, 1]]}, {"response_format": SCHEMA},
    {"response_format": {"type": "json_object"}}, {"response_format": {"type": "structural_tag"}},
    {"response_format": {"type": "grammar", "grammar": "root"}}, {"response_format": "json"},
    {"tool_choice": "required"}, {"tool_choice": "any"}, {"tool_choice": TOOL},
    {"tool_choice": {"type": "allowed_tools"}}, {"function_call": {"name": "look"}},
    {"structured_outputs": {"json": {}, "regex": "a+"}}, {"structured_outputs": {"choice": ["a"]}},
    {"guided_json": {"type": "object"}}, {"guided_regex": "a"}, {"guided_choice": ["a", "b"]},
    {"guided_grammar": "root"}, {"grammar": "root"}, {"regex": "a"}, {"ebnf": "root"},
    {"json_schema": {"type": "object"}}, {"structural_tag": "x"}, {"bad_words": ["x"]},
    {"bad_words_token_ids": [1]}, {"allowed_token_ids": [1]}, {"min_tokens": 1},
    {"min_new_tokens": 4}, {"min_length": 1}, {"use_beam_search": True}, {"num_beams": 4},
    {"best_of": 2}, {"best_of": 8, "n": 4}, {"best_of": "many"}, {"do_sample": False},
    {"ignore_eos": True}, {"logits_processors": ["m:f"]}, {"custom_logit_processor": "x"},
    {"custom_params": {"a": 1}}, {"vllm_xargs": {"a": 1}}, {"lora_path": "x"},
    {"watermark": True}, {"watermarking": True}, {"mirostat": 2}, {"mirostat_mode": 1},
    {"xtc_probability": 0.5}, {"dry_multiplier": 0.8}, {"dynatemp_range": 0.5},
    {"smoothing_factor": 0.2}, {"truncate_prompt_tokens": 100}, {"truncate_prompt_tokens": -1},
    {"thinking_token_budget": 0}, {"thinking_token_budget": 512}, {"thinking_budget": 100},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning": {"max_tokens": 2000}},
    {"options": {"top_p": 0.9}}, {"extra_body": {"top_k": 5}}, {"new_sampler": 0.3},
    {"new_sampler": 0}, {"new_sampler": True}, {"new_sampler": {"a": 1}},
]  # fmt: skip
