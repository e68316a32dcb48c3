"""A run starts from a whole folder of transformers, or says in one line why not."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from odradek.trainer.commit.resume import stand
from odradek.trainer.commit.tensor_files import INDEX, WEIGHTS
from odradek.trainer.errors import BrokenCheckpoint, NoModel, UnsuitedModel
from odradek.trainer.models import load_model
from odradek.trainer.saving.shards import MODEL, write_tensors
from odradek.trainer.saving.start_folder import check_folder, check_loaded

pytestmark = pytest.mark.torch


@pytest.fixture
def folder(tiny, tmp_path):
    """A model's folder."""
    return shutil.copytree(tiny, tmp_path / "model")


def quantized(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def gguf(folder):
    (folder / WEIGHTS).rename(folder / "model-q4.gguf")


def adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def without_weights(folder):
    (folder / WEIGHTS).unlink()


def sharded(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    write_tensors(folder, MODEL, tensors, most=100_000)


def half_fetched(folder):
    sharded(folder)
    max(folder.glob("*.safetensors")).unlink()


def bad_index(folder):
    sharded(folder)
    (folder / INDEX).write_text("{")


def missing(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (missing, NoModel, "hf download"),
        (adapter, NoModel, "LoRA adapter"),
        (without_weights, NoModel, "has no weights"),
        (half_fetched, NoModel, "not whole"),
        (bad_index, NoModel, "cannot be read"),
        (quantized, UnsuitedModel, "gptq"),
        (pickled, UnsuitedModel, "pickles"),
        (gguf, UnsuitedModel, "another format"),
    ],
)
def test_what_is_no_whole_folder_of_safetensors_is_refused(folder, spoil, error, says):
    """Before anything is loaded; the line names the folder."""
    check_folder(folder)
    spoil(folder)
    with pytest.raises(error, match=says) as refused:
        check_folder(folder)
    assert str(folder) in str(refused.value)


def test_shards_are_a_whole_folder(folder):
    """As the hub has them."""
    sharded(folder)
    check_folder(folder)
    check_loaded(load_model(folder), folder)


def test_a_model_of_which_a_part_is_missing_is_refused(folder, caplog):
    """Transformers would fill it with random numbers; what is left over is a line."""
    tensors = load_file(folder / WEIGHTS)
    extra = {**tensors, "vision.weight": tensors["model.norm.weight"].clone()}
    save_file(extra, folder / WEIGHTS, metadata={"format": "pt"})
    with caplog.at_level("INFO", "odradek"):
        check_loaded(load_model(folder), folder)
    assert "1 tensors" in caplog.text
    assert "vision.weight" in caplog.text
    del tensors["model.norm.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UnsuitedModel, match=r"1 of its weights .*\(norm\.weight\)"):
        check_loaded(load_model(folder), folder)


def test_a_checkpoint_of_a_run_is_a_start_for_another(groups, bench):
    """Its weights are taken, its moments are not; one that was changed is refused."""
    first = bench(groups, max_steps=1, name="first")
    first.trainer.run()
    folder = first.settings.output_dir / "checkpoint-1"
    second = bench(groups, max_steps=1, name="second", model=str(folder))
    started = second.weights()
    assert all(torch.equal(tensor, started[name]) for name, tensor in first.weights().items())
    assert 1 == second.trainer.run()
    (folder / "trainer_state.json").write_text("{}")
    with pytest.raises(BrokenCheckpoint, match="trainer_state"):
        bench(groups, max_steps=1, name="third", model=str(folder))


def test_a_start_model_that_is_gone_is_one_line_where_the_kl_term_needs_it(groups, bench, folder):
    """A run that goes on has its own weights, and compares with those that it began with."""
    first = bench(groups, max_steps=1, name="run", model=str(folder))
    first.trainer.run()
    shutil.rmtree(folder)
    standing = stand(first.settings, first.announced.steps, first.announced.policies)
    bench(groups, max_steps=1, name="run", model=str(folder), standing=standing)
    with pytest.raises(NoModel, match="not there"):
        bench(groups, max_steps=1, name="run", model=str(folder), standing=standing, kl=0.1)
