"""A project file is read strictly, overridden by the environment, and shown with its origins."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from odradek.infra.app.cli.look import config
from odradek.infra.app.cli.start import init
from odradek.infra.app.project import load
from odradek.infra.errors import ProjectError


def project(folder: Path, text: str) -> Path:
    """A folder that holds this odradek.toml."""
    (folder / "odradek.toml").write_text(text)
    return folder


def test_an_empty_file_is_a_project(tmp_path: Path) -> None:
    """Everything has a default."""
    found = load(project(tmp_path, ""), {})

    assert found.agents == ()
    assert found.environment("trainer") == {}


def test_the_file_becomes_the_environment_of_the_process(tmp_path: Path) -> None:
    """What the file says reaches the trainer as its own variables."""
    found = load(project(tmp_path, "[trainer]\nloss = 'grpo'\nlearning_rate = 1e-3\n"), {})

    assert found.environment("trainer") == {
        "ODRADEK_TRAINER_LOSS": "grpo",
        "ODRADEK_TRAINER_LEARNING_RATE": "0.001",
    }


def test_an_agents_other_models_reach_the_proxy(tmp_path: Path) -> None:
    """As the table that they are written as, and a mistake in one of them has its place."""
    text = "[proxy.models]\ntitle = {}\nsmall = { engine = 'http://x:1/v1', trained = true }\n"
    (told,) = load(project(tmp_path, text), {}).environment("proxy").items()

    assert told[0] == "ODRADEK_PROXY_MODELS"
    assert json.loads(told[1]) == {
        "title": {},
        "small": {"engine": "http://x:1", "trained": True},
    }
    with pytest.raises(ProjectError, match=r"proxy\.models\.small\.engin"):
        load(project(tmp_path, "[proxy.models]\nsmall = { engin = 'http://x' }\n"), {})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable overrides the file, and is left for the process to read by itself."""
    folder = project(tmp_path, "[trainer]\nloss = 'grpo'\n[engine]\nmodel = 'a'\n")
    found = load(folder, {"ODRADEK_TRAINER_LOSS": "dr_grpo", "ODRADEK_ENGINE_MODEL": "b"})

    assert found.value("trainer", "loss") == "dr_grpo"
    assert found.environment("trainer") == {}
    assert found.engine.model == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[trainer]\nlearning_rat = 1",
            "unknown key trainer.learning_rat: did you mean 'learning_rate'",
        ),
        ("[trainr]\n", r"unknown section \[trainr\]: did you mean 'trainer'"),
        ("[trainer]\nloss = 'x'", "trainer.loss: there is no loss 'x'"),
        ("[trainer]\nengine_urls = 'x'", "trainer.engine_urls is decided by `odradek up`"),
        (
            "[[agents]]\nname = 'a'",
            "agents: an agent has either `run`, `command`, `harness` or `a2a_url`",
        ),
        ("[agents]\nname = 'a'", r"agents is written as \[\[agents\]\]"),
        ("[[trainer]]\n", r"trainer is written as \[trainer\]"),
        (
            "[[agents]]\nname='a'\nrun='a:b'\n[[agents]]\nname='a'\nrun='a:b'",
            "two agents share a name",
        ),
        ("[[agents]]\nrun='a:b'", "agents.name: Field required"),
        ("[trainer]\n[[trainers]]\nname='a b'", "'a b' cannot name a trainer"),
        ("[trainer]\n[[trainers]]\nname='a'\n[[trainers]]\nname='a'", "two trainers share a name"),
        (
            "[trainer]\n[[trainers]]\nname='a'\nleads=true",
            "trainers.leads is decided by `odradek up`",
        ),
        ("trainer = 3\n[[trainers]]\nname='a'", r"trainer is written as \[trainer\]"),
        ("[[rewards]]\ncomponents='a'\nrun='a:b'", "did you mean 'component'"),
        ("= 3", "is no TOML"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong in the file is said with its place."""
    with pytest.raises(ProjectError, match=message) as caught:
        load(project(tmp_path, text), {})

    assert "\n" not in str(caught.value)


def test_no_file_says_what_to_do(tmp_path: Path) -> None:
    """A folder without a project names the verb that writes one."""
    with pytest.raises(ProjectError, match="odradek init"):
        load(tmp_path, {})


def test_init_writes_a_project_that_loads(tmp_path: Path) -> None:
    """The template is a project without mistakes, and is never written over another."""
    init.write(tmp_path / "new")
    found = load(tmp_path / "new", {})

    assert [agent.name for agent, _ in found.agents] == ["hilo", "hilo-cli"]
    assert [reward.component for reward, _ in found.rewards] == ["format"]
    with pytest.raises(ProjectError, match="already"):
        init.write(tmp_path / "new")


def test_config_tells_origins_and_masks_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`odradek config` shows where a value came from, and no secret."""
    folder = project(tmp_path, "[kafka]\nsasl_password = 'hunter2'\n[trainer]\nseed = 7\n")
    monkeypatch.setenv("ODRADEK_TRAINER_LOSS", "grpo")

    shown = CliRunner().invoke(config.command, ["--project", str(folder)])

    lines = {line.split()[0]: line.split()[1:] for line in shown.output.splitlines()}
    assert lines["trainer.seed"] == ["7", "odradek.toml"]
    assert lines["trainer.loss"] == ["grpo", "ODRADEK_TRAINER_LOSS"]
    assert lines["trainer.kl"] == ["0.0", "default"]
    assert lines["kafka.sasl_password"] == ["********", "odradek.toml"]
    assert "hunter2" not in shown.output
