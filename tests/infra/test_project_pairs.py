"""Settings of different processes that cannot work together are refused when the project is read."""

import importlib
import math
import types
import typing
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from odradek.infra.app.project import load
from odradek.infra.app.project.compatibility import in_flight
from odradek.infra.app.project.processes import grace_of
from odradek.infra.app.project.reference import CLASSES
from odradek.infra.errors import ProjectError
from odradek.proxy.errors import ProxyMisconfigured
from odradek.proxy.settings import ProxySettings
from odradek.schemas.events import Task

REWARD = '[[rewards]]\ncomponent = "game"\nrun = "a:b"\n'

REFUSED = [
    ('[engine]\nurl = "http://a:1"\nvllm = "p"\n', "engine.url", "engine.vllm"),
    ('[engine]\nvllm_flags = "--x"\n', "engine.vllm_flags", "engine.vllm"),
    (REWARD + REWARD, "rewards", "'game'"),
    (REWARD + '[streams.sources]\ngame = ["agent:*"]\n', "streams.sources", "/reward/game"),
    (REWARD + "[streams.sources]\ngame = []\n", "streams.sources", "/reward/game"),
    ("[dispatch]\nmax_attempts = 3\n", "dispatch.max_attempts", "group_s"),
    ("[streams.timeouts]\ngroup_s = 100\n", "streams.timeouts", "group_s"),
    ("[streams.timeouts]\ncall_s = 600\n", "streams.timeouts", "call_s"),
    ("[streams.timeouts]\nwrong_s = 1\n", "streams.timeouts", "wrong_s"),
    ("[streams]\nmax_attempts = 30\n", "streams.max_attempts", "dispatch.max_attempts"),
    ("[trainer]\nsync_every = 8\n", "sync_every", "max_staleness"),
    ('[trainer]\nprecision = "fp16"\n', "fp16", "bfloat16"),
    ('[[trainers]]\nname = "two"\n', "[[trainers]] (two)", "no [trainer]"),
    ('[trainer]\n[[trainers]]\nname = "main"\n', "trainer.run", "'main'"),
    (
        '[trainer]\nloss="cispo"\nepsilon_low=0\nepsilon_high=0\n[[trainers]]\nname="b"\nloss="gspo"',
        "trainers",
        "epsilon_low",
    ),
]

ACCEPTED = [
    "",
    '[engine]\nurl = "http://a:1"\n',
    '[engine]\nvllm = "p"\nvllm_flags = "--x"\n',
    REWARD,
    REWARD + '[streams.sources]\ngame = ["/reward/*"]\nother = ["agent:*"]\n',
    "[dispatch]\nmax_attempts = 1\n",
    '[trainer]\nrun = "one"\n[[trainers]]\nname = "main"\n',
    "[dispatch]\nmax_attempts = 3\n[streams]\ntimeouts = {group_s = 9000}\n",
]


def folder_with(folder: Path, text: str) -> Path:
    (folder / "odradek.toml").write_text(text)
    return folder


@pytest.mark.parametrize(("text", "one", "other"), REFUSED)
def test_a_pair_that_cannot_work_is_one_line_with_both_names(
    tmp_path: Path, text: str, one: str, other: str
) -> None:
    """`odradek config` and `odradek up` say it alike, before anything is started."""
    with pytest.raises(ProjectError) as caught:
        load(folder_with(tmp_path, text), {})
    assert one in str(caught.value)
    assert other in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_can_work_is_taken(tmp_path: Path, text: str) -> None:
    """On the border, too."""
    load(folder_with(tmp_path, text), {})


@pytest.mark.parametrize(
    ("text", "sizes", "says"),
    [
        ("[trainer]\n", [8], ""),
        ("[trainer]\nrows_per_step = 16\n", [8], "16 steps"),
        ("[trainer]\nrows_per_step = 16\nmax_staleness = 15\n", [8], ""),
        ("[trainer]\n[dispatch]\nopen_groups = 100\n", [2, 8], "100) groups of 8"),
        ("[dispatch]\nopen_groups = 100\n", [8], ""),
    ],
)
def test_more_rows_under_way_than_may_be_stale_are_worth_a_line(
    tmp_path: Path, text: str, sizes: list[int], says: str
) -> None:
    """Training goes on, but most of what is played is refused."""
    tasks = [Task(task_id=f"t{n}", agent="a", group_size=n) for n in sizes]
    line = in_flight(load(folder_with(tmp_path, text), {}), tasks)
    assert says in line
    assert bool(says) == bool(line)


@pytest.mark.parametrize(
    ("text", "grace_s"),
    [
        ("", 10.0),
        ('[[agents]]\nname = "a"\nrun = "a:b"\ngrace_s = 60\n', 65.0),
    ],
)
def test_processes_get_as_long_to_end_as_their_own_settings_say(
    tmp_path: Path, text: str, grace_s: float
) -> None:
    """Nobody is killed in the middle of what it was allowed to finish."""
    assert grace_s == grace_of(load(folder_with(tmp_path, text), {}))


@pytest.mark.parametrize(
    ("given", "one", "other"),
    [
        ({"seal_wait_s": 30}, "seal_wait_s", "timeouts.seal_s"),
    ],
)
def test_a_proxy_that_could_not_keep_its_word_does_not_start(
    given: dict[str, float], one: str, other: str
) -> None:
    """With both names in the line."""
    with pytest.raises(ProxyMisconfigured, match=one) as caught:
        ProxySettings(**given).check()
    assert other in str(caught.value)


def _floats() -> list[tuple[str, str]]:
    """Every setting of every process that holds a fraction."""
    found = []
    for module, name in CLASSES.values():
        kind: type[BaseSettings] = getattr(importlib.import_module(module), name)
        for key, field in kind.model_fields.items():
            kinds = (
                typing.get_args(field.annotation)
                if isinstance(field.annotation, types.UnionType)
                else (field.annotation,)
            )
            if float in kinds:
                found.append((f"{module}:{name}", key))
    return found


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("kind", "key"), _floats())
def test_no_setting_is_infinite_or_no_number(kind: str, key: str, value: float) -> None:
    """A deadline that never comes, a learning rate that ruins the first step."""
    module, _, name = kind.partition(":")
    made = getattr(importlib.import_module(module), name)
    with pytest.raises(ValidationError):
        made(**{key: value})
