"""Fields of requests that leave the distribution of a reply as it is, whatever they hold.

They are the conversation, say how it travels, who asks and who answers, or where a reply ends. Each
is known from the API of an engine, a vendor or a gateway, or from what a client sends.
"""

from typing import Final

NOTED: Final = frozenset(
    {
        "max_completion_tokens", "max_new_tokens", "max_output_tokens", "max_tokens", "n",
        "n_predict", "num_predict", "random_seed", "reasoning_effort", "sampling_seed", "seed",
        "stop", "stop_regex", "stop_sequences", "stop_token_ids",
    }
)  # fmt: skip
"""Fields that a turn records although they leave the distribution as it is: where a reply ends at a
stop, each of its tokens was drawn from all of them."""

PLAIN: Final = frozenset(
    {
        # OpenAI, and what its and Anthropic's clients add.
        "anthropic_beta", "anthropic_version", "audio", "betas", "cache_control",
        "client_metadata", "diagnostics", "echo", "functions", "inference_geo", "logprobs",
        "messages", "metadata", "modalities", "model", "moderation", "parallel_tool_calls",
        "prediction", "prompt", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "service_tier", "store", "speed",
        "stream", "stream_options", "suffix", "system", "thread", "tools", "top_logprobs", "user",
        "user_id", "user_profile_id", "verbosity", "web_search_options", "workspace_id",
        # vLLM: prompts, what is returned, and where it runs.
        "add_generation_prompt", "add_special_tokens", "cache_salt", "chat_template",
        "chat_template_kwargs", "continue_final_message", "data_parallel_rank", "documents",
        "ec_transfer_params", "enable_thinking",
        "guided_decoding_backend", "guided_whitespace_pattern", "include_reasoning",
        "include_stop_str_in_output", "kv_transfer_params", "logprob_token_ids",
        "media_io_kwargs", "mm_processor_kwargs", "priority", "prompt_embeds", "prompt_logprobs",
        "repetition_detection", "request_id", "return_mm_kwargs", "return_prompt_text",
        "return_token_ids", "return_token_offsets", "return_tokens_as_token_ids",
        "return_weight_versions", "routed_experts_prompt_start", "session_id",
        "skip_special_tokens", "spaces_between_special_tokens", "stream_interval",
        "truncation_side",
        # SGLang.
        "bootstrap_host", "bootstrap_port", "bootstrap_room", "custom_labels",
        "disagg_prefill_dp_rank", "extra_key", "images_config", "input_ids", "logprob_start_len",
        "max_dynamic_patch", "min_dynamic_patch", "ngram_corpus_id", "no_stop_trim",
        "return_cached_tokens_details", "return_hidden_states", "return_logprob",
        "return_meta_info", "return_prompt_token_ids", "return_routed_experts",
        "return_text_in_logprobs", "rid", "routed_dp_rank", "routed_experts_start_len",
        "separate_reasoning", "session_params", "stream_reasoning", "top_logprobs_num",
        "use_audio_in_video",
        # llama.cpp, Ollama, TGI and other servers; parts of samplers that are off without theirs.
        "cache_prompt", "chat_template_args", "decoder_input_details", "details",
        "dry_allowed_length", "dry_base", "dry_penalty_last_n", "dry_sequence_breakers",
        "dynatemp_exponent", "early_stopping", "guideline", "id_slot", "keep_alive", "low_vram",
        "main_gpu", "min_keep", "mirostat_eta", "mirostat_tau", "n_discard", "n_keep", "n_probs",
        "num_batch", "num_ctx", "num_gpu", "num_keep", "num_thread", "numa", "penalize_newline",
        "penalize_nl", "perf_metrics_in_response", "prompt_mode", "raw", "raw_output",
        "reasoning_format", "reasoning_history", "reasoning_in_content", "reasoning_split",
        "repeat_last_n", "return_full_text", "return_progress", "return_tokens", "safe_prompt",
        "shift", "smoothing_curve", "t_max_predict_ms", "t_max_prompt_ms", "temperature_last",
        "think", "timings_per_token", "tool_prompt", "tool_stream", "top_n_tokens", "use_cache",
        "use_mlock", "use_mmap", "vl_high_resolution_images", "xtc_threshold",
        # Gateways (LiteLLM, OpenRouter), and what SDKs in front of them leave in a body.
        "cache", "caching", "context_length_exceeded_behavior", "custom_llm_provider",
        "drop_params", "extra_headers", "extra_query", "labels", "litellm_call_id",
        "litellm_metadata", "litellm_session_id", "litellm_trace_id", "max_retries",
        "num_retries", "parallelToolCalls", "promptCacheKey", "prompt_cache_isolation_key",
        "provider", "reasoningEffort", "reasoningSummary", "reasoning_summary",
        "request_timeout", "route", "safetyIdentifier", "safetySettings", "safety_settings",
        "serviceTier", "stream_usage", "tags", "textVerbosity", "timeout", "trace", "trace_id",
        "transforms", "usage", "user_security_context",
    }
)  # fmt: skip
"""Fields that no turn records: they are the conversation, or say how it travels."""
