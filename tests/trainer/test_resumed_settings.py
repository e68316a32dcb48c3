"""A run that goes on does so with the settings of its new start, whatever its checkpoint remembers."""

import logging

import pytest
import torch

from odradek.trainer.commit import checkpoint
from odradek.trainer.commit.resume import stand
from odradek.trainer.engine.tiny import make_tiny
from odradek.trainer.errors import BadSettings, BrokenCheckpoint
from odradek.trainer.settings import TrainerSettings

pytestmark = pytest.mark.torch

HOLD = {
    "engine_timeout_s": 60.0,
    "loss": "grpo",
    "learning_rate": 5e-4,
    "weight_decay": 0.2,
    "adam_beta2": 0.9,
    "max_grad_norm": 0.5,
    "epsilon_low": 0.1,
    "epsilon_high": 0.3,
    "dual_clip": 3.0,
    "kl": 0.05,
    "kl_form": "k3_weighted",
    "entropy": 0.01,
    "top_entropy": 0.5,
    "tis": 2.0,
    "tis_low": 0.1,
    "correction": "token_mask",
    "baseline": "mean",
    "scale_advantages": False,
    "pass_k": 2,
    "overlong_tokens": 300,
    "overlong_buffer": 10,
    "length_penalty": 0.1,
    "weigh": "row",
    "temperature": 0.9,
    "truncated": "mask",
    "success_reward": 0.5,
    "rows_per_step": 8,
    "micro_tokens": 200,
    "max_row_tokens": 500,
    "max_staleness": 900,
    "max_staleness_replayed": 900,
    "fresh_share": 0.5,
    "max_steps": 3,
    "sync_every": 2,
    "save_every": "90s",
    "keep": 2,
    "seed": 11,
    "precision": "bfloat16",
    "tf32": True,
    "gradient_checkpointing": 2,
    "schedule": "cosine",
    "warmup_steps": 2,
}
"""What a person may change between two starts, with another value than the first start had."""

ELSEWHERE = {
    "run": "names the run: another one is refused in its folder",
    "output_dir": "is where the checkpoint is looked for",
    "batches_topic": "belongs to the run: another one is refused in its folder",
    "model": "is the checkpoint's: a line says so",
    "begin_anew": "counts where no checkpoint can be loaded",
    "policy": "is read at each announcement",
    "engine_urls": "are read at each transfer",
    "leads": "is told in each entry of the ledger",
    "sampled_by": "is read from the ledger at each start",
    "revision": "is asked of the log for each batch",
    "replay_of": "is read from the ledger at each start",
    "until_end": "is asked of the feed at each poll",
    "transfer_dtype": "is chosen at each start, and tests/trainer/test_transfer_dtype.py has it",
    "optimizer": "is chosen at each start; tests have 32 bits",
    "lora_rank": "is the checkpoint's: another one is refused",
    "lora_alpha": "is the checkpoint's: another one is refused",
    "lora_rslora": "is the checkpoint's: another one is refused",
    "lora_targets": "are the checkpoint's: others are refused",
    "lora_dropout": "is drawn at each step of an adapter, and tests/trainer/test_adapter.py has it",
    "device": "is chosen at each start; tests have the CPU",
    "level": "only decides other settings, each of which has its place here",
    "liger": "is applied at each start; it needs a GPU",
    "compile_layers": "is asked for at each start; tests do not compile",
}
"""Every other setting, and why it is none of those."""


def test_every_setting_has_its_place_at_a_resume():
    """A new one is put into one of the two tables above."""
    assert HOLD.keys() | ELSEWHERE.keys() == TrainerSettings.model_fields.keys()


def held(trainer):
    """What the parts of a trainer that has made a step go by, not what its settings say."""
    args, optimizer = trainer.args, trainer._inner_optimizer
    return {
        "groups": [
            {key: group[key] for key in ("lr", "betas", "eps", "weight_decay", "initial_lr")}
            for group in optimizer.param_groups
        ],
        "rates": list(trainer.lr_scheduler.state_dict()["base_lrs"]),
        "args": {
            key: getattr(args, key)
            for key in (
                "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
                "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm",
                "temperature", "seed", "gradient_checkpointing", "dtype",
            )
        },
        "shape": trainer._scores.options,
        "rules": trainer.parts.feed.consumption._rules,
        "reference": trainer._reference is not None,
        "dtype": next(trainer.model.parameters()).dtype,
        "precision": trainer._precision,
        "budget": trainer._gradient.budget,
        "checkpointing": trainer.model.is_gradient_checkpointing,
        "steps": int(trainer.state.global_step),
        "bound": int(trainer.state.max_steps),
        "settings": trainer.settings.model_dump(exclude={"output_dir"}),
    }  # fmt: skip


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_all_that_may_be_changed_between_two_starts_holds_in_the_second(
    groups, bench, resume, back
):
    """Changed all at once, the parts of the resumed trainer are those of one that began so."""
    before, after = {"weight_decay": 0.1, "max_steps": 3}, HOLD
    if back:
        before, after = after, before
    first = bench(groups, name="run", **{**before, "max_steps": 1})
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    second = bench(groups, name="run", standing=resume(folder), **after)
    assert 3 == second.trainer.run()
    fresh = bench(groups, name="fresh", **after)
    fresh.trainer.run()
    assert held(fresh.trainer) == held(second.trainer)
    old = held(first.trainer)
    assert old.keys() - {"reference", "dtype"} <= {
        part for part, value in held(second.trainer).items() if value != old[part]
    }


STEPPED = {
    "learning_rate": (1e-30, lambda step: step["moved"] < 1e-12),
    "weight_decay": (400.0, lambda step: step["norm"] < 0.5),
    "adam_beta2": (0.25, lambda step: step["squares"] > 100),
}
"""Setting: (its value in the second start, what that does to the next step)."""


@pytest.mark.parametrize("name", STEPPED)
def test_the_next_step_is_made_with_the_new_number(groups, bench, resume, name, caplog):
    """Seen in the weights and in what Adam remembers; and one line says what changed."""
    first = bench(groups, max_steps=1, name="run")
    first.trainer.run()
    squares = squared(first.trainer)
    folder = checkpoint.newest(first.settings.output_dir)
    value, seen = STEPPED[name]
    with caplog.at_level(logging.INFO, "odradek"):
        second = bench(groups, max_steps=2, name="run", standing=resume(folder), **{name: value})
        second.trainer.run()
    matrix = "model.layers.0.mlp.up_proj.weight"
    before, after = first.weights()[matrix], second.weights()[matrix]
    step = {
        "moved": float((after - before).abs().max()),
        "norm": float(after.norm() / before.norm()),
        "squares": squared(second.trainer) / squares,
    }
    assert seen(step), step
    assert [name] == [
        r.message.split(" is ")[0] for r in caplog.records if "from here" in r.message
    ]


def squared(trainer):
    """What Adam remembers of the first matrix's squared gradients, summed up."""
    matrix = dict(trainer.model.named_parameters())["model.layers.0.mlp.up_proj.weight"]
    return float(trainer._inner_optimizer.state[matrix]["exp_avg_sq"].sum())


def test_nothing_is_said_where_nothing_changed(groups, bench, resume, caplog):
    """The same settings are the same run."""
    first = bench(groups, max_steps=1, name="run", weight_decay=0.1)
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    with caplog.at_level(logging.INFO, "odradek"):
        bench(
            groups, max_steps=2, name="run", standing=resume(folder), weight_decay=0.1
        ).trainer.run()
    assert [] == [record.message for record in caplog.records if "from here" in record.message]


def test_another_model_is_none_at_a_resume_and_a_line_says_so(
    groups, bench, resume, tmp_path, caplog
):
    """A run goes on with its checkpoint's weights, whatever their shape."""
    first = bench(groups, max_steps=1, name="run")
    first.trainer.run()
    other = tmp_path / "other"
    make_tiny(other, [], seed=3, steps=0)
    changed = first.settings.model_copy(update={"model": str(other)})
    with caplog.at_level(logging.WARNING, "odradek"):
        found = stand(changed, first.announced.steps, first.announced.policies)
    told = "goes on with the weights of its checkpoint"
    (line,) = [record.message for record in caplog.records if told in record.message]
    assert all(model in line for model in (str(other), first.settings.model))
    second = bench(groups, max_steps=1, name="run", standing=found, model=str(other))
    second.trainer.run()
    for name, weights in first.weights().items():
        assert torch.equal(weights, second.weights()[name]), name


@pytest.mark.parametrize("name", ["run", "batches_topic"])
def test_a_setting_that_names_the_run_is_refused_in_another_ones_folder(groups, bench, name):
    """It would go on where another run stands."""
    first = bench(groups, max_steps=1, name="run")
    first.trainer.run()
    with pytest.raises(BadSettings, match=r"holds run 'main' on rl\.batches\.v1"):
        stand(first.settings.model_copy(update={name: "other"}), [], [])


def test_state_of_other_parameters_is_refused(groups, bench, resume):
    """What Adam remembers is found by place, and must not become another parameter's."""
    first = bench(groups, max_steps=1, name="run")
    first.trainer.run()
    folder = checkpoint.newest(first.settings.output_dir)
    said = (folder / "optimizer.json").read_text()
    (folder / "optimizer.json").write_text(said.replace('"params": [0, 1,', '"params": [1, 0,'))
    second = bench(groups, max_steps=2, name="run", standing=resume(folder))
    with pytest.raises(BrokenCheckpoint, match="of other parameters"):
        second.trainer.run()
