"""A project file becomes processes: which, in what order, and what each is told."""

from pathlib import Path

import pytest

from odradek.infra.app.cli import VERBS
from odradek.infra.app.cli.start import init
from odradek.infra.app.project import load
from odradek.infra.app.project.processes import RunAddresses, specs
from odradek.infra.app.supervisor import Spec

PLACES = RunAddresses(
    bootstrap_servers="127.0.0.1:1",
    token_keys="s" * 32,
    proxy_port=8401,
    engine_port=8001,
    model="/models/tiny",
)


def made(folder: Path, text: str | None = None) -> dict[str, Spec]:
    """The processes of the template, or of this odradek.toml."""
    if text is None:
        init.write(folder)
    else:
        (folder / "odradek.toml").write_text(text)
    return {spec.name: spec for spec in specs(load(folder), PLACES)}


def test_the_template_names_every_process(tmp_path: Path) -> None:
    """Engine, proxy, streams, two agents, a reward service, trainer and dispatcher."""
    assert set(made(tmp_path)) == {
        "engine", "proxy", "intake", "assembler", "grouper", "agent-hilo", "agent-hilo-cli",
        "reward-format", "trainer", "dispatcher",
    }  # fmt: skip


def test_each_command_is_a_verb(tmp_path: Path) -> None:
    """Processes are verbs of the command line, so that anyone can run one by hand."""
    assert {spec.command[3] for spec in made(tmp_path).values()} <= set(VERBS)


def test_no_secret_stands_in_a_command_line(tmp_path: Path) -> None:
    """Keys travel in the environment, which others on the machine cannot read."""
    found = made(tmp_path)

    assert not any("s" * 32 in word for spec in found.values() for word in spec.command)
    assert found["proxy"].env["ODRADEK_TOKEN_KEYS"] == "s" * 32


def test_the_engine_comes_before_what_calls_it(tmp_path: Path) -> None:
    """The proxy waits for the engine, agents for the proxy; the trainer waits by itself."""
    found = made(tmp_path)

    assert found["proxy"].after == ("engine",)
    assert found["agent-hilo"].after == ("proxy",)
    assert found["trainer"].after == ()


def test_replicas_are_processes_with_names_of_their_own(tmp_path: Path) -> None:
    """Each replica keeps a name, so that it comes back to its partitions."""
    found = made(tmp_path, "[[agents]]\nname = 'a'\nrun = 'agent:play'\nreplicas = 2\n")

    instances = [found[name].env["ODRADEK_INSTANCE"] for name in ("agent-a-0", "agent-a-1")]
    assert instances == ["agent-a-0", "agent-a-1"]


def test_without_a_trainer_section_nobody_waits_for_one(tmp_path: Path) -> None:
    """Rollouts without training are paced by closed groups."""
    found = made(tmp_path, "[engine]\nurl = 'http://gpu-box:8000/v1'\n")

    assert "trainer" not in found
    assert "--no-trainer" in found["dispatcher"].command


def test_an_engine_elsewhere_is_not_started(tmp_path: Path) -> None:
    """A url in place of a model: proxy and trainer are told where it is."""
    found = made(tmp_path, "[engine]\nurl = 'http://gpu-box:8000/v1'\nmodel = 'm'\n[trainer]\n")

    assert "engine" not in found
    assert found["proxy"].env["ODRADEK_ENGINE_URL"] == "http://gpu-box:8000"
    assert found["trainer"].env["ODRADEK_ENGINE_URL"] == "http://gpu-box:8000"


@pytest.mark.parametrize("driver", ["kafka", "faust"])
def test_the_driver_reaches_the_streams(tmp_path: Path, driver: str) -> None:
    """`streams.driver` is what intake, assembler and grouper run on."""
    found = made(tmp_path, f"[engine]\nmodel = 'm'\n[streams]\ndriver = '{driver}'\n")

    for name in ("intake", "assembler", "grouper"):
        assert found[name].env["ODRADEK_STREAMS_DRIVER"] == driver


def test_a_vllm_of_the_users_own_serves_the_model(tmp_path):
    """`engine.vllm` names the Python of its environment, and the flags reach it."""
    text = "[engine]\nmodel = 'm'\nvllm = 'v/bin/python'\nvllm_flags = '--enforce-eager'\n"
    engine = made(tmp_path, text)["engine"]
    assert ("engine", "vllm", "--python", "v/bin/python", "--enforce-eager") == engine.command[3:]
