"""Models of many families, small and random, as folders that a trainer can be started on."""

from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {
    "vocab_size": 103,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,
}
"""Of a decoder as most configurations name them."""


def make(folder: Path, tokenizer: Any, config: str, kind: str, **more: Any) -> Path:
    """Save a random model of `kind` with this configuration and a tokenizer."""
    torch.manual_seed(0)
    given = {**SIZES, **more}
    made = getattr(transformers, config)(**{k: v for k, v in given.items() if v is not ...})
    model = getattr(transformers, kind)(made)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
