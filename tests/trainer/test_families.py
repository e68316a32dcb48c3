"""Models of other families: trained on as they compute, or refused before anything is published."""

import pytest
import torch

from odradek.trainer.engine.decode import Sampler
from odradek.trainer.errors import ModelError, NoModel, UnsuitedModel
from odradek.trainer.models import load_model
from odradek.trainer.step import attention
from tests.support.trainer.model_families import make
from tests.support.trainer.played_groups import group_of, play

pytestmark = pytest.mark.torch

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GPT2 = {
    "n_embd": 32, "n_layer": 2, "n_head": 2, "hidden_size": ..., "num_hidden_layers": ...,
    "num_attention_heads": ..., "max_position_embeddings": ..., "n_positions": 256,
}  # fmt: skip
WINDOW = {"sliding_window": 8}
"""Shorter than any row here."""

SUITED = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}, {}),
    "qwen2, its window unused": (
        "Qwen2Config", "Qwen2ForCausalLM", {**WINDOW, "use_sliding_window": False}, {}
    ),
    "qwen2, of which one layer has a window": (
        "Qwen2Config", "Qwen2ForCausalLM",
        {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}, {},
    ),
    "mistral with a window": ("MistralConfig", "MistralForCausalLM", WINDOW, {}),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", WINDOW, {}),
    "olmo3": ("Olmo3Config", "Olmo3ForCausalLM", WINDOW, {}),
    "gemma2 without its cap": (
        "Gemma2Config", "Gemma2ForCausalLM", {**WINDOW, "attn_logit_softcapping": None}, {}
    ),
    "qwen3 with experts": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", MOE, {}),
    "gpt2, which has dropout": ("GPT2Config", "GPT2LMHeadModel", GPT2, {}),
    "opt": ("OPTConfig", "OPTForCausalLM", {"ffn_dim": 64, "word_embed_proj_dim": 32}, {}),
    "cohere, which scales its logits": ("CohereConfig", "CohereForCausalLM", {}, {}),
    "granite, too": (
        "GraniteConfig", "GraniteForCausalLM",
        {"logits_scaling": 4.0, "attention_multiplier": 0.3}, {},
    ),
    "llama in bfloat16": ("LlamaConfig", "LlamaForCausalLM", {}, {"precision": "bfloat16"}),
}  # fmt: skip
"""Family: (configuration, model, what is set of it, settings)."""


UNSUITED = {
    "gemma2 with its cap": ("Gemma2Config", "Gemma2ForCausalLM", WINDOW, {}, "softcapping"),
    "gpt-oss": (
        "GptOssConfig", "GptOssForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2},
        {}, "attention sinks",
    ),
    "qwen3-next": (
        "Qwen3NextConfig", "Qwen3NextForCausalLM",
        {**MOE, "shared_expert_intermediate_size": 32,
         "layer_types": ["linear_attention", "full_attention"]}, {}, "linear_attention layers",
    ),
    "llama4": (
        "Llama4TextConfig", "Llama4ForCausalLM",
        {"intermediate_size_mlp": 64, "num_local_experts": 2}, {}, "chunked_attention layers",
    ),
    "mamba": ("MambaConfig", "MambaForCausalLM", {}, {}, "linear_attention layers"),
    "lfm2": (
        "Lfm2Config", "Lfm2ForCausalLM", {"layer_types": ["conv", "full_attention"]}, {},
        "conv layers",
    ),
    "recurrent gemma": (
        "RecurrentGemmaConfig", "RecurrentGemmaForCausalLM", {"lru_width": 32},
        {"max_row_tokens": 2048}, "cannot be trained",
    ),
    "bloom": (
        "BloomConfig", "BloomForCausalLM",
        {"n_head": 2, "n_layer": 2, "num_attention_heads": ..., "num_hidden_layers": ...}, {},
        "ALiBi",
    ),
    "falcon with alibi": (
        "FalconConfig", "FalconForCausalLM", {"alibi": True, "head_dim": ...}, {}, "ALiBi",
    ),
    "t5": (
        "T5Config", "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
         "hidden_size": ..., "num_hidden_layers": ..., "num_attention_heads": ..., "head_dim": ...},
        {}, "an encoder and a decoder",
    ),
    "bert": ("BertConfig", "BertLMHeadModel", {}, {}, "off by"),
    "xlnet": (
        "XLNetConfig", "XLNetLMHeadModel",
        {"d_model": 32, "n_head": 2, "n_layer": 2, "d_inner": 64, "hidden_size": ...,
         "num_attention_heads": ..., "num_hidden_layers": ..., "max_position_embeddings": ...},
        {}, "2 of 2 layers are no attention",
    ),
    "gpt-j": ("GPTJConfig", "GPTJForCausalLM", {**GPT2, "rotary_dim": 8}, {}, "attention but its own"),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", {}, {}, "does not run through it"),
}  # fmt: skip
"""Family: (configuration, model, what is set of it, settings, what the line says)."""


@pytest.mark.parametrize("family", SUITED)
def test_a_family_that_is_taken_is_on_policy_in_its_first_step(bench, tokenizer, tmp_path, family):
    """What its own sampler told is what the packed tree computes, dropout or not."""
    config, kind, more, settings = SUITED[family]
    folder = make(tmp_path / "model", tokenizer, config, kind, **more)
    sampler = Sampler(
        load_model(folder), pad_id=tokenizer.pad_token_id, end_ids=[tokenizer.eos_token_id], seed=0
    )
    games = play(sampler, tokenizer, [1, 1, 1, 1])
    group = group_of(games, offset=0, version=1)
    made = bench(
        [_told_apart(group)], model=str(folder), rows_per_step=4, micro_tokens=200, max_steps=1,
        **settings,
    )  # fmt: skip
    assert 1 == made.trainer.run()
    (step,) = [step for step in made.announced.steps if step.optimized]
    near = {"auto": 1e-4, "bfloat16": 0.05}[made.settings.precision]
    assert 1 == pytest.approx(step.metrics["ratio_mean"], abs=near)
    assert step.metrics["mismatch_max"] < 10 * near
    assert step.metrics["grad_norm"] > 0


def _told_apart(group):
    """The group with rewards that differ, so that something can be learned."""
    import msgspec

    pointers = tuple(
        msgspec.structs.replace(pointer, reward=float(n % 2))
        for n, pointer in enumerate(group.batch.episodes)
    )
    batch = msgspec.structs.replace(group.batch, episodes=pointers, zero_variance=False)
    episodes = tuple(
        (pointer, episode) for pointer, (_, episode) in zip(pointers, group.episodes, strict=True)
    )
    return type(group)(group.offset, batch, episodes)


@pytest.mark.parametrize("family", UNSUITED)
def test_a_family_that_no_tree_runs_through_is_refused_in_a_line(
    bench, tokenizer, tmp_path, family
):
    """At the start: no version is taken, nothing is written, no engine is asked."""
    config, kind, more, settings, says = UNSUITED[family]
    folder = make(tmp_path / "model", tokenizer, config, kind, **more)
    announced = type("Nobody", (), {})()  # whoever is told anything raises
    with pytest.raises(ModelError) as caught:
        bench([], model=str(folder), announced=announced, **settings)
    assert says in str(caught.value)
    assert str(folder) in str(caught.value)
    assert [] == [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_a_kernel_that_computes_something_else_is_found_out(bench, monkeypatch):
    """Whatever is wrong with it: the trial compares with the model's own attention."""
    right = attention.tree_attention

    def wrong(module, query, key, value, mask, **more):
        return right(module, query, key, value.flip(2), mask, **more)

    monkeypatch.setattr(attention, "tree_attention", wrong)
    with pytest.raises(UnsuitedModel, match="off by"):
        bench([])


def test_the_trial_leaves_a_model_as_it_was(bench):
    """Its weights, its way of attention, and what torch would draw next."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    model = bench([]).trainer.model
    torch.manual_seed(5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert attention.NAME == model.config._attn_implementation
    assert model.training is False


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "nobody"}', "{}"])
def test_a_configuration_that_cannot_be_read_is_one_line(bench, tiny, tmp_path, text):
    """It is no model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError):
        bench([], model=str(folder))


def test_a_folder_without_weights_is_one_line(bench, tiny, tmp_path):
    """The file that is missing is named by the library that looked for it."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny.iterdir():
        if "safetensors" not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises((NoModel, UnsuitedModel), match=str(folder)):
        bench([], model=str(folder))
