"""Whatever a judge's errors are called and say, they are one line that can be written anywhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.foreign_code import LONGEST
from odradek.infra.runtime.imports import find
from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.streams.errors import RewardFailed, RewardRefused
from odradek.streams.judges.judge import what_failed
from odradek.streams.judges.named import NamedJudge

pytestmark = pytest.mark.processes

ODD = """
def odd(name, **more):
    return type(name, (Exception,), more)

def angry(self):
    raise RuntimeError

def worse(self):
    raise SystemExit(3)

ERRORS = {
    "surrogate": odd("E")("a\\udcff b"),
    "pair": odd("E")("\\ud83d"),
    "control": odd("E")("a\\0b\\x1b[31m\\r\\nc\\u2028d"),
    "named": odd("E\\n\\x1bx")("words"),
    "long": odd("E" * 100_000)("x" * 1_000_000),
    "angry": odd("E", __str__=angry, __repr__=angry)(),
    "worse": odd("E", __str__=worse)(),
    "no_text": odd("E", __str__=lambda self: 5)(),
    "untraceable": odd("E", __traceback__=property(angry))(),
    "group": BaseExceptionGroup("a\\udcff", [ValueError("\\udcff"), KeyboardInterrupt()]),
    "exit": SystemExit("\\udcff"),
    "generator": GeneratorExit("\\udcff"),
}
exec(compile("def elsewhere(error):\\n    raise error", "odd\\n\\x1b.py", "exec"))
"""
NAMES = [
    "surrogate", "pair", "control", "named", "long", "angry", "worse", "no_text", "untraceable",
    "group", "exit", "generator",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A project's folder with errors of every kind."""
    (tmp_path / "odd_errors.py").write_text(ODD)
    (tmp_path / "raising_judges.py").write_text(
        "from odd_errors import *\n"
        "def f(c):\n    elsewhere(ERRORS[c.item]) if c.item else None\n    return 0.5\n"
        "async def later(c):\n    return f(c)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("odd_errors", "raising_judges"):
        sys.modules.pop(name, None)


def is_one_line(text: str) -> bool:
    """Whether a terminal, a header and JSON can hold it."""
    return text.isprintable() and 0 < len(text) <= LONGEST + 200 and bool(text.encode())


@pytest.fixture
async def judge():
    """Plain functions, in a worker."""
    made = NamedJudge("raising_judges:f", 1, 30.0)
    await made.start()
    yield made
    await made.aclose()


async def said(judge, item: str) -> float:
    asked = Conversation(episode_id="e", task_id="t", agent="a", sample=0, item=item)
    return await judge.judge(asked, codec.encode(asked))


@pytest.mark.parametrize("name", NAMES)
async def test_a_plain_functions_error_is_one_line_and_the_worker_goes_on(judge, name):
    """Its own text is left out: it may quote what an agent said."""
    with pytest.raises(RewardFailed) as failed:
        await said(judge, name)
    assert is_one_line(str(failed.value))
    assert not failed.value.lost
    assert 0.5 == await said(judge, "")
    assert 1 == len(judge._judge.workers)


@pytest.mark.parametrize("name", NAMES)
async def test_an_async_functions_error_is_one_line(name):
    """The same errors in the service itself."""
    judge = NamedJudge("raising_judges:later", 1, 30.0)
    await judge.start()
    with pytest.raises(RewardFailed) as failed:
        await said(judge, name)
    assert is_one_line(str(failed.value))


@pytest.mark.parametrize("name", NAMES)
async def test_a_modules_error_is_one_line(name):
    """It cannot be imported, and the line says which."""
    Path("bad_module.py").write_text(f"from odd_errors import *\nraise ERRORS[{name!r}]")
    with pytest.raises(RewardRefused, match="bad_module:f cannot be imported: ") as refused:
        await NamedJudge("bad_module:f", 1).start()
    assert is_one_line(str(refused.value))
    assert "its worker" not in str(refused.value)


def test_a_number_of_an_odd_type_is_named_in_one_line():
    """Its name is a judge's own, too."""

    class Odd:
        pass

    Odd.__name__ = "O\n\x1b" + "x" * 1000
    from odradek.schemas.numbers import number

    with pytest.raises(TypeError) as refused:
        number(Odd(), "it")
    assert is_one_line(what_failed(refused.value))


PATHS = [
    "", ":", "a:", ":f", "a", "\0:f", "a:f\0", "a\0:f", "a:\udcff", "\ud800:f", "a:f\n", "a\t:f",
    "\x1b[31ma:f", ".:f", ".a:f", "a..b:f", "a.:f", "..:f",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=ascii)
async def test_a_name_that_can_be_none_is_refused_before_anything_is_started(path):
    """In a line that shows what is odd about it."""
    with pytest.raises((RewardRefused, NoSuchName), match="not of the form module:function") as no:
        await NamedJudge(path, 1).start()
    assert is_one_line(str(no.value))
    with pytest.raises(NoSuchName):
        find(path)


@pytest.mark.parametrize("component", ["a\0", "a\udcff", "", " ", "a b", "a" * 300, "ä", "a\n"])
def test_a_component_that_can_be_none_is_one_line(component):
    """In a project's file as on the command line."""
    toml = component.encode("unicode_escape").decode().replace("\\x", "\\u00")
    Path("odradek.toml").write_text(
        f'[[rewards]]\ncomponent = "{toml}"\nrun = "a:b"\n', encoding="utf-8"
    )
    found = subprocess.run(
        [sys.executable, "-m", "odradek.infra.app.cli", "config"], capture_output=True, text=True
    )
    assert 2 == found.returncode, found.stdout
    assert 1 == len(found.stderr.splitlines()), found.stderr
    assert "component" in found.stderr or "no TOML" in found.stderr
