"""Settings that cannot work are refused at the start, with both names and the reason."""

import pytest
from pydantic import ValidationError

from odradek.trainer.settings import TrainerSettings, contradictions, without_effect

AGAIN = {"batches_topic": "again"}

REFUSED = [
    ({"sync_every": 8, "max_staleness": 4}, "sync_every", "max_staleness"),
    ({"sync_every": 2, "max_staleness": 0}, "sync_every", "max_staleness"),
    ({"sync_every": 6, "max_staleness": 4}, "sync_every to 5", "max_staleness to 5"),
    ({"sync_every": 10**9}, "sync_every", "max_staleness"),
    ({"sync_every": 10**9, "max_steps": 6}, "sync_every", "max_staleness"),
    ({"max_row_tokens": 1}, "max_row_tokens", "rows_per_step"),
    ({"precision": "float16"}, "float16", "bfloat16"),
    ({"precision": "fp16"}, "fp16", "bfloat16"),
    ({"epsilon_low": 0, "epsilon_high": 0}, "epsilon_low", "epsilon_high"),
    ({"epsilon_low": 0, "epsilon_high": 0, "loss": "gspo"}, "epsilon_low", "gspo"),
    ({"replay_of": "main", "run": "x"}, "replay_of", "batches_topic"),
    ({**AGAIN, "replay_of": "main", "run": "main"}, "replay_of", "run"),
    ({"batches_topic": "rl.episodes.v1", "run": "x"}, "batches_topic", "rl.batches.v1"),
    ({"batches_topic": "rl.dlq.v1", "run": "x"}, "batches_topic", "rl.batches.v1"),
    ({"batches_topic": "rl.mixed.v1"}, "batches_topic", "tis"),
    ({"batches_topic": "rl.mixed.v1", "tis": 2, "replay_of": "x"}, "replay_of", "rl.mixed.v1"),
    ({"sampled_by": "main"}, "sampled_by", "run"),
    ({"leads": False}, "leads", "run"),
    ({"leads": True, "sampled_by": "main", "run": "x"}, "leads", "sampled_by"),
    ({**AGAIN, "leads": False, "run": "x"}, "leads", "replay_of"),
    ({**AGAIN, "sampled_by": "main", "run": "x"}, "sampled_by", "replay_of"),
    (
        {"lora_rank": 8, "max_staleness": 63, "engine_urls": "http://a:1"},
        "lora_rank",
        "65 adapters",
    ),
    ({"run": ""}, "run", "1 to 256"),
    ({"run": "  "}, "run", "1 to 256"),
    ({"run": "r" * 257}, "run", "1 to 256"),
    ({"policy": ""}, "policy", "1 to 256"),
    ({**AGAIN, "run": "r" * 200, "policy": "p" * 100}, "policy", "run"),
    ({"model": "runs/policy", "output_dir": "runs/policy"}, "model", "output_dir"),
    ({"model": "runs/policy/checkpoint-3", "output_dir": "./runs/policy/"}, "model", "output_dir"),
]
"""(settings, what the line names, what else it names)."""

ACCEPTED = [
    {},
    {"sync_every": 5, "max_staleness": 4},
    {"sync_every": 1, "max_staleness": 0},
    {"sync_every": 10**9, "max_staleness": 4, "max_steps": 5},
    {**AGAIN, "sync_every": 8, "run": "x"},
    {"batches_topic": "rl.mixed.v1", "tis": 2},
    {"max_row_tokens": 0},
    {"max_row_tokens": 2},
    {"precision": "bfloat16"},
    {"epsilon_low": 0},
    {"epsilon_high": 0},
    {"epsilon_low": 1},
    {"epsilon_low": 0, "epsilon_high": 0, "loss": "cispo"},
    {**AGAIN, "replay_of": "main", "run": "x"},
    {**AGAIN, "run": "x"},
    {"sampled_by": "main", "run": "x", "sync_every": 99},
    {"leads": False, "run": "x", "sync_every": 99},
    {"leads": False, "sampled_by": "other"},
    {"leads": True, **AGAIN},
    {"lora_rank": 8, "max_staleness": 62, "engine_urls": "http://a:1"},
    {"lora_rank": 8, "max_staleness": 1000},
    {"run": "r" * 256},
    {"save_every": 10**6, "keep": 1},
    {"model": "runs/policy-start", "output_dir": "runs/policy"},
    {"tis": 2.0, "kl": 0.1, "loss": "gspo", "gradient_checkpointing": True},
]


@pytest.mark.parametrize(("given", "one", "other"), REFUSED)
def test_a_pair_that_cannot_work_is_one_line_with_both_names(given, one, other):
    """It says why; the same settings would have run for hours and then stopped moving."""
    with pytest.raises(ValidationError) as caught:
        TrainerSettings(**given)
    (error,) = caught.value.errors()
    assert one in error["msg"]
    assert other in error["msg"]
    assert "\n" not in error["msg"]


@pytest.mark.parametrize("given", ACCEPTED)
def test_what_can_work_is_taken(given):
    """On the border, too."""
    assert [] == list(contradictions(TrainerSettings(**given)))


@pytest.mark.parametrize(("given", "one", "other"), REFUSED[:3])
def test_the_environment_is_held_against_itself_as_well(given, one, other, monkeypatch):
    """Whoever says it."""
    for name, value in given.items():
        monkeypatch.setenv(f"ODRADEK_TRAINER_{name.upper()}", str(value))
    with pytest.raises(ValidationError, match=one):
        TrainerSettings()


@pytest.mark.parametrize(
    "urls",
    ["localhost:8000", "ftp://a:1", "http://", "http://me:secret@a:1", "http://a:port", "http://a:0",
     "http://a:1, b:2"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_before_anything_is_trained(urls):
    """It would have ended the run at its first transfer; a credential in it is not repeated."""
    with pytest.raises(ValidationError) as caught:
        TrainerSettings(engine_urls=urls)
    assert "secret" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("urls", "engines"),
    [
        ("", ()),
        ("http://a:1/v1/", ("http://a:1",)),
        ("http://a:1, http://a:1/,https://b/v1", ("http://a:1", "https://b")),
        ("http://[::1]:8000", ("http://[::1]:8000",)),
        ("http://a:1,http://A:1", ("http://a:1",)),
        ("http://a,http://a:80/v1,https://a", ("http://a", "https://a")),
        ("https://a:443/v1/, https://a", ("https://a:443",)),
        ("http://a:1/x,http://a:1/y", ("http://a:1/x", "http://a:1/y")),
    ],
)
def test_addresses_are_taken_as_people_write_them(urls, engines):
    """Each once, without /v1."""
    assert engines == TrainerSettings(engine_urls=urls).engines


IDLE = [
    ({"lora_alpha": 16}, "lora_alpha has no effect with lora_rank = 0"),
    ({"epsilon_low": 0.1, "loss": "cispo"}, "epsilon_low has no effect with loss = cispo"),
    ({"engine_timeout_s": 9, "engine_urls": ""}, "engine_timeout_s has no effect"),
]


@pytest.mark.parametrize(("given", "says"), IDLE)
def test_a_setting_that_nothing_reads_is_named(given, says):
    """What a person gave and what holds are the same, or a line says otherwise."""
    settings = TrainerSettings(**{"engine_urls": "http://a:1"} | given)
    assert [] != [line for line in without_effect(settings) if line.startswith(says)]


def test_nothing_is_named_that_has_an_effect():
    """Nor what nobody gave."""
    given = {"engine_urls": "http://a:1", "loss": "dr_grpo", "epsilon_low": 0.1}
    assert [] == list(without_effect(TrainerSettings(**given)))


def test_a_live_run_without_engines_is_told_what_that_means():
    """Nobody would load the new weights."""
    (line,) = without_effect(TrainerSettings())
    assert line.startswith("no engine_urls")
    assert [] == list(without_effect(TrainerSettings(batches_topic="again", run="x")))
