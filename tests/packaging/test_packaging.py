"""What people install is what the repository holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
FOLDERS = ("schemas", "streams", "agents", "trainer", "proxy", "infra")


def run(*command: object) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from an sdist built from the tree."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (made,) = out.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_what_git_holds(wheel):
    """Every tracked file of the six folders is in the wheel under odradek/, and nothing else."""
    tracked = run("git", "ls-files", "--", *FOLDERS).split("\n")
    expected = {f"odradek/{name}" for name in tracked if name and (ROOT / name).exists()}
    names = set(zipfile.ZipFile(wheel).namelist())
    held = {name for name in names if ".dist-info/" not in name}
    assert set() == expected - held
    untracked = run("git", "ls-files", "--others", "--exclude-standard", "--", *FOLDERS).split()
    assert set() == held - expected - {f"odradek/{name}" for name in untracked}
    with zipfile.ZipFile(wheel) as opened:
        other = [
            name
            for name in held & expected
            if opened.read(name) != (ROOT / name.removeprefix("odradek/")).read_bytes()
        ]
    assert [] == other, "and it holds the same bytes"


@pytest.mark.slow
def test_the_wheel_works_where_it_is_installed(wheel, tmp_path):
    """Installed away from the repository, the package imports and the command answers."""
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path, wheel)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "import odradek.schemas, odradek.infra.app.cli as cli;"
        f"assert odradek.schemas.__file__.startswith({str(tmp_path)!r});"
        "sys.argv = ['odradek', '--help']; cli.main()"
    )
    assert "train" in run(sys.executable, "-c", program)


@pytest.mark.slow
def test_a_type_checker_believes_the_wheels_annotations(wheel, tmp_path):
    """Each folder is marked as typed (PEP 561): mypy reads it, and finds a mistake."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel)
    assert [] == [name for name in FOLDERS if not (site / "odradek" / name / "py.typed").exists()]
    program = tmp_path / "consumer.py"
    program.write_text(
        "from odradek.schemas.ids import task_id\n"
        "reveal_type(task_id)\n"
        "wrong: int = task_id('item', 0, 'run')\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--config-file", "/dev/null",
         "--python-executable", tmp_path / "venv/bin/python", program],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "-> str" in checked.stdout
    assert "Incompatible types in assignment" in checked.stdout
    assert "Found 1 error" in checked.stdout


def test_the_core_imports_without_torch_and_faust():
    """`pip install odradek` is enough for everything but training."""
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "trl", "transformers", "matplotlib", "openai"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import odradek.schemas, odradek.infra.bus, odradek.infra.client, odradek.infra.app.cli
import odradek.agents, odradek.proxy, odradek.streams
import odradek.proxy.process, odradek.agents.host.host, odradek.agents.dispatch.dispatcher
import odradek.streams.stages.assembler, odradek.streams.stages.grouper, odradek.streams.drivers.kafka
assert "faust" not in sys.modules
"""
    run(sys.executable, "-W", "ignore", "-c", program)


def test_no_lock_file_and_no_index_address():
    """Requirements are pinned by hash and name no registry."""
    assert run("git", "ls-files", "uv.lock") == ""
    for file in (ROOT / "requirements").glob("*.txt"):
        text = file.read_text()
        assert "--index-url" not in text
        assert "://" not in text
        assert "--hash=sha256:" in text
