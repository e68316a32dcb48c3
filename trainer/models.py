"""Models and tokenizers of a folder, as the trainer and the small engine load them."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from odradek.trainer.errors import NoModel, NoTokenizer


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a model folder.

    Raises:
        NoModel: The folder is not there.
        NoTokenizer: It holds no tokenizer that can be read.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise NoModel(f"{folder} is no model folder: it has no config.json")
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    if not any((folder / name).is_file() for name in names):
        raise NoTokenizer(
            f"{folder} has no tokenizer: save it there with tokenizer.save_pretrained()"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise NoTokenizer(f"the tokenizer in {folder} cannot be read: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path | str, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """The model of a folder, from safetensors only, ready to sample. Raises NoModel."""
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            Path(path),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, KeyError) as error:
        raise NoModel(f"the model in {path} cannot be loaded: {error}") from error
    return model.to(device).eval()
