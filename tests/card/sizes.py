"""How large things are on a card, and on a CPU, where only the code is tried."""

from dataclasses import dataclass

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


@dataclass(frozen=True)
class ModelSize:
    """Of a random Qwen3."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    intermediate: int
    vocabulary: int = 151_936

    def config(self, length: int) -> Qwen3Config:
        """Of a model that takes so many tokens."""
        return Qwen3Config(
            vocab_size=self.vocabulary, hidden_size=self.hidden, head_dim=self.head,
            intermediate_size=self.intermediate, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.key_heads,
            max_position_embeddings=length, tie_word_embeddings=True, use_cache=False,
        )  # fmt: skip

    def made(self, length: int, device: torch.device, dtype=torch.float32) -> Qwen3ForCausalLM:
        """With random weights, made where it stays."""
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                return Qwen3ForCausalLM(self.config(length))
        finally:
            torch.set_default_dtype(before)


@dataclass(frozen=True)
class Sizes:
    """Of all parts."""

    heads: tuple[int, ...]
    """Numbers of a head."""
    tokens: tuple[int, int]
    """Of a tree that is compared, no multiple of 128; and of one whose mask is made."""
    model: ModelSize
    group: int
    turns: int
    prompt: int
    sampled: int
    between: int
    rows: tuple[int, ...]
    """Lengths of long rows."""
    adapted: ModelSize
    """The model that adapters are trained on."""
    steps: int
    """Of the game, at most."""
    repeats: int


QWEN3_0_6B = ModelSize(1024, 28, 16, 8, 128, 3072)
QWEN3_8B = ModelSize(4096, 36, 32, 8, 128, 12_288)
TINY = ModelSize(32, 2, 2, 1, 16, 64, vocabulary=500)

FULL = Sizes(
    heads=(64, 128), tokens=(2500, 16_384), model=QWEN3_0_6B, group=8, turns=10, prompt=600,
    sampled=120, between=466, rows=(16_384, 32_768), adapted=QWEN3_8B, steps=150, repeats=2,
)  # fmt: skip
SMALL = Sizes(
    heads=(16,), tokens=(300, 1024), model=TINY, group=2, turns=2, prompt=12, sampled=3, between=5,
    rows=(192,), adapted=TINY, steps=2, repeats=1,
)  # fmt: skip
