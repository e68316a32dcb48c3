"""A setting that is gone or renamed says so, wherever it is still given."""

import pytest
from click.testing import CliRunner

from odradek.infra.app.cli import main
from odradek.infra.app.project import load
from odradek.infra.app.project.reference import CLASSES, GROUPS, TWELVE, page
from odradek.infra.app.project.sections import variable
from odradek.infra.app.variables import REMOVED, RENAMED
from odradek.infra.errors import ProjectError
from tests.infra.test_every_setting import classes


def today():
    """Every variable that some process reads."""
    kinds = (kind for kind in classes() if hasattr(kind, "model_config"))
    return {variable(kind, key) for kind in kinds for key in kind.model_fields}


@pytest.mark.parametrize("name", RENAMED)
def test_a_renamed_variable_is_an_error_that_gives_its_name_of_today(name, monkeypatch):
    """No process starts with half of what it was told."""
    monkeypatch.setenv(name, "3")
    told = CliRunner().invoke(main, ["config", "--reference"])
    assert told.exit_code
    assert f"{name} is called {RENAMED[name]} now" in told.output
    assert RENAMED[name] in today()


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_variable_is_a_line_that_says_what_holds(name, monkeypatch, caplog):
    """It changed nothing that a process could not do without."""
    monkeypatch.setenv(name, "3")
    told = CliRunner().invoke(main, ["config", "--reference"])
    assert not told.exit_code
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{name} is no setting any more")
    assert line.endswith("unset it")
    assert name not in today()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[proxy]\nidle_s = 5", "proxy.idle_s is no setting any more"),
        ("[trainer]\nthreads = 4", "trainer.threads is no setting any more: OMP_NUM_THREADS"),
        ('[[agents]]\nname = "a"\nrun = "a:b"\nfenced = false', "always begin in transactions"),
        ("[streams]\nmax_attempts = 3", "dispatch.max_attempts"),
        ("[trainer]\nsuccess_reward = 3", "evaluation.success"),
    ],
)
def test_a_former_key_of_a_project_is_one_line(tmp_path, text, says):
    """With the place, as any other mistake."""
    (tmp_path / "odradek.toml").write_text(text)
    with pytest.raises(ProjectError, match=r"odradek\.toml") as caught:
        load(tmp_path, {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_page_begins_with_twelve_and_then_goes_by_groups():
    """Each variable stands in one group, however many processes read it."""
    text = page()
    assert 12 == len(TWELVE)
    heads = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert ["The twelve that people set", *GROUPS, "Keys that only odradek.toml has"] == heads
    _, *groups = text.split("\n## ")[1:-1]
    found = [line.split("`")[1] for group in groups for line in group.splitlines() if "| `" in line]
    assert sorted(set(found)) == sorted(found)
    assert today() >= set(found) >= set(TWELVE)
    assert CLASSES


def test_one_variable_names_the_engines_of_proxy_and_trainer_and_a_replay_reloads_none(monkeypatch):
    """A replay must not move the live engines."""
    from odradek.proxy.settings import ProxySettings
    from odradek.trainer.settings import TrainerSettings

    monkeypatch.setenv("ODRADEK_ENGINE_URL", "http://a:1/v1,http://b:2")
    assert ["http://a:1", "http://b:2"] == ProxySettings().engine_urls
    assert ("http://a:1", "http://b:2") == TrainerSettings().engines
    assert (
        () == TrainerSettings(batches_topic="rl.batches.again", replay_of="main", run="r").engines
    )
