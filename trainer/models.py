"""Models and tokenizers of a folder, as the trainer and the small engine load them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from odradek.trainer import chat_template
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


def template_line(tokenizer: Any) -> str:
    """What a tokenizer's chat template will do to episodes, in one line for people."""
    if not tokenizer.chat_template:
        return "chat template: there is none, so agents can ask for text completions only"

    def render(
        messages: Sequence[chat_template.Message],
        tools: Sequence[Any] | None,
        answer: bool,
    ) -> list[int]:
        try:
            ids: list[int] = tokenizer.apply_chat_template(
                list(map(dict, messages)),
                tools=tools and list(tools),
                add_generation_prompt=answer,
                tokenize=True,
                return_dict=False,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise chat_template.TemplateRefusal(str(error)) from error
        return ids

    return chat_template.line(chat_template.findings(render))


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
