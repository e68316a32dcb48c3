"""A checkpoint becomes a whole model that transformers loads, with an adapter merged into it."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from odradek.infra.app.cli import main
from odradek.trainer.adapters.export import export_model, merge
from odradek.trainer.commit import checkpoint
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.errors import BadSettings, BrokenCheckpoint
from odradek.trainer.models import load_model

pytestmark = pytest.mark.torch
LORA = {"lora_rank": 4, "lora_alpha": 8, "lora_rslora": True, "learning_rate": 5e-3}
IDS = torch.arange(5, 45)[None]


@pytest.fixture
def trained(groups, bench):
    """`trained(**settings)`: a trainer that has made two steps, and its checkpoint."""

    def run(**settings):
        made = bench(groups, max_steps=2, name="run", **settings)
        made.trainer.run()
        return made.trainer, checkpoint.newest(made.settings.output_dir)

    return run


def logprobs(model):
    model.eval()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        return model(input_ids=IDS).logits.log_softmax(-1)


@pytest.mark.parametrize("settings", [LORA, {}], ids=["adapter", "all weights"])
def test_an_exported_model_says_what_the_trained_one_says(trained, tmp_path, tiny, settings):
    """Log probabilities to 1e-6, relatively, in float32; and its tokenizer comes with it."""
    trainer, folder = trained(**settings)
    made = export_model(folder, tmp_path / "out")
    whole = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", local_files_only=True, use_safetensors=True
    )
    assert torch.float32 == whole.dtype
    expected = logprobs(trainer.model)
    assert (expected - logprobs(whole)).norm() < 1e-6 * expected.norm()
    start = AutoModelForCausalLM.from_pretrained(tiny, local_files_only=True, use_safetensors=True)
    assert (logprobs(start) - logprobs(whole)).abs().max() > 1e-3
    assert not [name for name, _ in whole.named_parameters() if "lora" in name]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert "<|im_start|>" in tokenizer.get_vocab()
    assert ("main", 2, str(tiny)) == (made.run, made.step, made.begun_from)
    assert (4 if settings else None) == (made.adapter and made.adapter.rank)
    assert {"out"} == {path.name for path in tmp_path.iterdir()} - {"run"}


def test_an_exported_model_has_its_card(trained, tmp_path):
    """With the metrics of its last step, though its checkpoint was begun at the end."""
    _, folder = trained()
    export_model(folder, tmp_path / "out", base_model="a/b", command=["odradek", "export"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for line in ('base_model: "a/b"', "# out", "| optimizer steps | 2 |", "odradek export"):
        assert line in card.splitlines(), line
    for start in ("| `success` | 0.", "| `learning_rate` | 0.", "| torch | "):
        assert any(line.startswith(start) for line in card.splitlines()), start


def test_merging_is_exact(trained, tiny):
    """In float64, where nothing else is rounded, the merged model is the one with its adapter."""
    trainer, folder = trained(**LORA)
    whole = load_model(tiny).double()
    merge(whole, folder)
    assert (logprobs(trainer.model.double()) - logprobs(whole)).abs().max() < 1e-12


def test_the_command_says_what_it_wrote(trained, tmp_path):
    """Half as large in bfloat16."""
    _, folder = trained(**LORA)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        main, ["export", "model", str(folder), str(out), "--dtype", "bfloat16"]
    )
    assert 0 == done.exit_code, done.output
    assert f"run main, step 2: 144,704 parameters in bfloat16 in {out}" in done.output
    assert "an adapter of rank 4 merged" in done.output
    whole = AutoModelForCausalLM.from_pretrained(out, local_files_only=True, use_safetensors=True)
    assert torch.bfloat16 == whole.dtype


def test_an_adapter_is_merged_into_its_own_base_only(trained, tmp_path, tiny):
    """Wherever that is now; another model is refused, and a lost one asked for."""
    _, folder = trained(**LORA)
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(tiny, moved)
    make_tiny(other, [], seed=3, steps=0)
    with pytest.raises(BadSettings, match="has other weights or another configuration"):
        export_model(folder, tmp_path / "out", model=other)
    with pytest.raises(BadSettings, match="holds no model: give --model"):
        export_model(folder, tmp_path / "out", model=tmp_path / "nowhere")
    export_model(folder, tmp_path / "out", model=moved)


def test_a_folder_that_holds_something_is_left_alone(trained, tmp_path):
    """And a checkpoint that differs from its manifest becomes no model."""
    _, folder = trained(**LORA)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(BadSettings, match="is there already"):
        export_model(folder, tmp_path / "full")
    base = json.loads((folder / "base.json").read_text())
    (folder / "base.json").write_text(json.dumps({**base, "digest": "0" * 64}))
    with pytest.raises(BrokenCheckpoint, match=r"base\.json"):
        export_model(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
