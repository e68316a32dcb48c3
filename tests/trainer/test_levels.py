"""Levels: what they decide, what wins over them, and what none of them turns on."""

import json

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from odradek.infra.app.cli.look import config
from odradek.infra.app.project import load
from odradek.infra.app.project.processes import RunAddresses, specs
from odradek.trainer.levels import LEVELS
from odradek.trainer.settings import TrainerSettings

UNTRIED = {"tf32", "liger", "compile_layers", "optimizer"}
"""Settings of which some value was never run on a card."""
PLACES = RunAddresses(
    bootstrap_servers="k:1", token_keys="x" * 32, proxy_port=1, engine_port=2, model="m"
)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_decides_what_nothing_else_does(level, monkeypatch):
    """An argument, and a variable, win over it; all else is as by default."""
    monkeypatch.setenv("ODRADEK_TRAINER_LEVEL", level)
    made, default = TrainerSettings(), TrainerSettings(level="balanced")
    assert LEVELS[level] == {name: getattr(made, name) for name in LEVELS[level]}
    kept = LEVELS[level].keys() | {"level"}
    assert default.model_dump(exclude=kept) == made.model_dump(exclude=kept)
    assert 77 == TrainerSettings(micro_tokens=77).micro_tokens
    monkeypatch.setenv("ODRADEK_TRAINER_SAVE_EVERY", "5")
    assert "5" == TrainerSettings().save_every
    assert LEVELS[level]["micro_tokens"] == TrainerSettings().micro_tokens


def test_every_level_decides_the_same_settings_and_one_is_the_default():
    """So that changing the level leaves nothing of the one before."""
    assert 1 == len({frozenset(values) for values in LEVELS.values()})
    plain = TrainerSettings()
    assert LEVELS[plain.level] == {name: getattr(plain, name) for name in LEVELS[plain.level]}
    with pytest.raises(ValidationError, match="'safe', 'balanced' or 'fast'"):
        TrainerSettings(level="turbo")


def test_no_level_turns_on_what_was_never_run_on_a_card():
    """The descriptions say of which settings that holds."""
    said = {
        name
        for name, field in TrainerSettings.model_fields.items()
        if "never run on a card" in " ".join((field.description or "").lower().split())
    }
    assert said == UNTRIED
    assert not [name for values in LEVELS.values() for name in values if name in UNTRIED]


def test_config_says_which_values_are_the_levels(tmp_path):
    """A key of the file wins, and says so; a process gets the level and not what follows from it."""
    (tmp_path / "odradek.toml").write_text(
        '[engine]\nmodel = "tiny"\n[[agents]]\nname = "a"\nrun = "a:b"\n'
        '[trainer]\nlevel = "safe"\nsave_every = 3\n'
    )
    shown = CliRunner().invoke(config.command, ["--project", str(tmp_path), "--json"])
    rows = {row["key"]: row for row in json.loads(shown.output)}
    assert ("4096", "level safe") == (
        rows["trainer.micro_tokens"]["value"], rows["trainer.micro_tokens"]["from"],
    )  # fmt: skip
    assert ("3", "odradek.toml") == (
        rows["trainer.save_every"]["value"], rows["trainer.save_every"]["from"],
    )  # fmt: skip
    assert "default" == rows["trainer.tf32"]["from"]
    assert {f"trainer.{name}" for name in UNTRIED} == {
        key for key, row in rows.items() if "never run on a card" in row["note"].lower()
    }
    (trainer,) = [spec for spec in specs(load(tmp_path, {}), PLACES) if spec.name == "trainer"]
    assert "safe" == trainer.env["ODRADEK_TRAINER_LEVEL"]
    assert "ODRADEK_TRAINER_MICRO_TOKENS" not in trainer.env
    text = CliRunner().invoke(config.command, ["--project", str(tmp_path), "--changed"]).output
    assert "level safe" in text
    whole = CliRunner().invoke(config.command, ["--project", str(tmp_path)]).output
    assert "trainer.liger: Never run on a card" in whole
