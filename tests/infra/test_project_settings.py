"""What a project's settings say is what its processes go by."""

from pathlib import Path

import pytest

from odradek.infra.app.project import load
from odradek.infra.app.project.processes import RunAddresses, specs
from odradek.infra.app.project.project import Project, ProjectSection, SettingValue
from odradek.infra.app.project.sections import KINDS, variable

TEXT = """
[kafka]
[engine]
model = "tiny"
[[agents]]
name = "one"
run = "a:b"
[[rewards]]
component = "c"
run = "a:b"
[sampler]
[trainer]
[[trainers]]
name = "two"
"""
PROCESSES = {
    "kafka": (
        "engine",
        "proxy",
        "intake",
        "agent-one",
        "reward-c",
        "sampler",
        "trainer",
        "trainer-two",
        "dispatcher",
    ),
    "engine": ("engine",),
    "proxy": ("proxy",),
    "agents": ("agent-one",),
    "dispatch": ("dispatcher",),
    "streams": ("intake", "assembler", "grouper", "reward-c"),
    "sampler": ("sampler",),
    "trainer": ("trainer",),
}
"""Section: the processes that go by it."""
GIVEN = {("kafka", "bootstrap_servers"), ("proxy", "port")}
"""What reaches the processes by way of the places of a run."""
PLACES = RunAddresses(
    bootstrap_servers="k:1", token_keys="x" * 32, proxy_port=1, engine_port=2, model="m"
)
KEYS = [
    (section, key)
    for section, kind in KINDS.items()
    for key in sorted(kind.process_keys())
    if (section, key) not in GIVEN and not kind.base
]


def saying(project: Project, section: str, key: str) -> Project:
    """The project with this key set in its file."""
    settings = KINDS[section].settings()
    assert settings is not None
    entry = project.entries[section][0]
    value = SettingValue(key, "SAID", "odradek.toml", variable(settings, key), False)
    told = ProjectSection(own=entry.own, values=(*(v for v in entry.values if v.key != key), value))
    return Project(
        folder=project.folder,
        path=project.path,
        entries={**project.entries, section: (told,)},
        written=project.written,
    )


@pytest.mark.parametrize(("section", "key"), KEYS, ids=[".".join(one) for one in KEYS])
def test_each_key_that_a_file_may_hold_reaches_its_processes(
    tmp_path: Path, section: str, key: str
) -> None:
    """`odradek config` shows it, so nothing else may hold."""
    (tmp_path / "odradek.toml").write_text(TEXT)
    project = load(tmp_path, {})
    settings = KINDS[section].settings()
    assert settings is not None
    made = {spec.name: spec.env for spec in specs(saying(project, section, key), PLACES)}
    for name in PROCESSES[section]:
        assert "SAID" == made[name][variable(settings, key)], name


@pytest.mark.parametrize("topic", ["rl.mixed.v1", None])
def test_a_trainer_reads_what_a_sampler_writes_where_there_is_one(tmp_path: Path, topic) -> None:
    """A section of the sampler is all that it takes."""
    (tmp_path / "odradek.toml").write_text(TEXT if topic else TEXT.replace("[sampler]", ""))
    made = {spec.name: spec.env for spec in specs(load(tmp_path, {}), PLACES)}
    assert topic == made["trainer"].get("ODRADEK_TRAINER_BATCHES_TOPIC")
    assert bool(topic) == ("sampler" in made)


def test_a_trainer_of_a_list_reads_beside_the_one_that_leads(tmp_path: Path) -> None:
    """It has that one's settings but for its own, a run and a folder by its name, and never leads."""
    text = TEXT.replace("[trainer]", "[trainer]\nrun = 'one'\nkl = 0.1\nloss = 'grpo'")
    (tmp_path / "odradek.toml").write_text(f"{text}loss = 'gspo'\n")
    made = {spec.name: spec.env for spec in specs(load(tmp_path, {}), PLACES)}
    names = ("RUN", "LEADS", "SAMPLED_BY", "LOSS", "KL")
    found = {
        name: [made[name].get(f"ODRADEK_TRAINER_{key}") for key in names]
        for name in ("trainer", "trainer-two")
    }
    assert {
        "trainer": ["one", None, None, "grpo", "0.1"],
        "trainer-two": ["two", "false", "one", "gspo", "0.1"],
    } == found
    folders = {made[name]["ODRADEK_TRAINER_OUTPUT_DIR"] for name in found}
    assert {"policy", "trainer-two"} == {Path(folder).name for folder in folders}


def test_vllm_is_waited_for_as_long_as_the_file_says(tmp_path: Path) -> None:
    """The supervisor is no less patient than the process that starts it."""
    text = TEXT.replace('model = "tiny"', 'model = "m"\nvllm = "python"\nready_s = 1800')
    (tmp_path / "odradek.toml").write_text(text)
    made = {spec.name: spec for spec in specs(load(tmp_path, {}), PLACES)}
    assert 1800.0 == made["engine"].ready_s
    assert "1800.0" == made["engine"].env["ODRADEK_ENGINE_READY_S"]
    waiting = {name for name, spec in made.items() if "engine" in spec.after}
    assert {"proxy", "trainer", "trainer-two"} == waiting, "whoever else asks it has less patience"
