"""A tiny language model, made on the spot: two layers, 64 wide, a tokenizer of 103 characters.

A random model does not find the format of a game by itself, so it gets a short supervised warm-up
on conversations that hold random valid moves. After that it knows how to move, not what to move:
what remains is for reinforcement learning to find.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

Conversation = Sequence[dict[str, str]]
"""Messages with `role` and `content`, as the chat completions API has them."""

SPECIALS: Final = (
    "<|pad|>", "<|unk|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|tool|>", "<|think|>",
)  # fmt: skip
CHARACTERS: Final = ("\n", *(chr(code) for code in range(32, 127)))
CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INITIAL = 0.1
"""Standard deviation of the random weights: about 1/sqrt(64), because with 0.02, which suits wide
models, attention begins near zero and the game takes twice as many steps to learn."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 103 ids: the printable ASCII characters, the line feed, seven specials.

    Its ChatML template only ever appends, so a prompt begins with the prompt and the completion
    of the turn before.
    """
    vocabulary = {token: i for i, token in enumerate((*SPECIALS, *CHARACTERS))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))  # noqa: S106 - no password
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",  # noqa: S106 - no password
        unk_token="<|unk|>",  # noqa: S106 - no password
        eos_token="<|im_end|>",  # noqa: S106 - no password
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def random_model(seed: int, vocabulary: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights: 2 layers, hidden 64, 2 heads, 145 thousand parameters."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(vocabulary),
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,  # the least that vLLM's CPU attention takes
            max_position_embeddings=2048,
            initializer_range=INITIAL,
            tie_word_embeddings=False,
            pad_token_id=vocabulary.pad_token_id,
            bos_token_id=None,
            eos_token_id=vocabulary.eos_token_id,
        )
    )


def _supervised(
    conversation: Conversation, vocabulary: PreTrainedTokenizerFast
) -> tuple[list[int], list[int]]:
    """Ids of a conversation, and labels: the assistant's words and their ends, -100 elsewhere."""
    ids: list[int] = []
    labels: list[int] = []
    for message in conversation:
        head = vocabulary.encode(f"<|im_start|>{message['role']}\n", add_special_tokens=False)
        content = vocabulary.encode(f"{message['content']}<|im_end|>", add_special_tokens=False)
        tail = vocabulary.encode("\n", add_special_tokens=False)
        assistant = message["role"] == "assistant"
        ids += head + content + tail
        labels += [-100] * len(head)
        labels += content if assistant else [-100] * len(content)
        labels += [-100] * len(tail)
    return ids, labels


def warm_up(
    model: Qwen3ForCausalLM,
    vocabulary: PreTrainedTokenizerFast,
    conversations: Sequence[Conversation],
    *,
    seed: int,
    steps: int,
    learning_rate: float = 1e-2,
    batch: int = 32,
) -> float:
    """Train on conversations, `batch` at a time; returns the last loss in nats a token."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    examples = [_supervised(conversation, vocabulary) for conversation in conversations]
    model.train()
    last = float("nan")
    for step in range(steps):
        for group in optimizer.param_groups:  # a ramp up, then down to a tenth
            group["lr"] = learning_rate * min((step + 1) / 5, 1.0 - 0.9 * step / steps)
        picked = torch.randint(len(examples), (batch,), generator=generator).tolist()
        width = max(len(examples[i][0]) for i in picked)
        ids = torch.full((batch, width), int(vocabulary.pad_token_id))
        labels = torch.full((batch, width), -100)
        for row, i in enumerate(picked):
            ids[row, : len(examples[i][0])] = torch.tensor(examples[i][0])
            labels[row, : len(examples[i][1])] = torch.tensor(examples[i][1])
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.size(-1)), labels[:, 1:].reshape(-1)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no type for it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last = loss.item()
    model.eval()
    return last


def make_tiny(
    path: Path | str,
    conversations: Sequence[Conversation],
    *,
    seed: int = 0,
    steps: int = 40,
    learning_rate: float = 1e-2,
) -> dict[str, Any]:
    """Make a warmed-up tiny model with its tokenizer in a folder, as safetensors.

    Args:
        path: The folder; made if it is not there.
        conversations: What to warm up on: valid but unskilled play.
        seed: Of the weights and of the order of the examples.
        steps: Supervised steps of 32 conversations each; 0 leaves the weights random.
        learning_rate: At its peak.

    Returns:
        `{"parameters": n, "loss": nats a token, "vocabulary": n}`.
    """
    transformers_logging.disable_progress_bar()
    vocabulary = tokenizer()
    model = random_model(seed, vocabulary)
    loss = float("nan")
    if steps and conversations:
        loss = warm_up(
            model, vocabulary, conversations, seed=seed, steps=steps, learning_rate=learning_rate
        )
    model.generation_config.eos_token_id = vocabulary.eos_token_id
    model.generation_config.pad_token_id = vocabulary.pad_token_id
    model.save_pretrained(path)
    vocabulary.save_pretrained(path)
    about = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss,
        "vocabulary": len(vocabulary),
    }
    (Path(path) / "tiny.json").write_text(json.dumps(about) + "\n")
    return about
