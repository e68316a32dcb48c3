"""Scripts try an interpreter before they count on it."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
ALL = sorted(path for path in SCRIPTS.rglob("*") if path.is_file())
PROOFS = {path.name: path for path in ALL if path.parent.name == "proofs"}
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
BROKEN = {
    "a shim with nothing behind it": "#!/bin/sh\necho 'pyenv: python: command not found' >&2\nexit 127\n",
    "another version": "#!/bin/sh\nexit 1\n",
    "no program": "not a program",
    "a shim without a version": "#!/bin/sh\necho 'No version is set for command python' >&2\nexit 126\n",
    "a shim that ends well": "#!/bin/sh\necho 'not installed yet' >&2\n",
    "a shim that talks": "#!/bin/sh\necho True story\n",
    "one that makes no environments": '#!/bin/sh\nPYTHONPATH="$HOME/bare" exec {python} "$@"\n',
}
REAL = '#!/bin/sh\nexec {python} "$@"\n'
MANAGERS = {
    "pyenv": (".pyenv/versions/{version}.0", {}),
    "pyenv elsewhere": ("my pyenv/versions/{version}.0", {"PYENV_ROOT": "my pyenv"}),
    "asdf": (".asdf/installs/python/{version}.0", {}),
    "asdf elsewhere": ("asdf/installs/python/{version}.0", {"ASDF_DATA_DIR": "asdf"}),
    "mise": (".local/share/mise/installs/python/{version}", {}),
    "mise elsewhere": ("data/mise/installs/python/{version}", {"XDG_DATA_HOME": "data"}),
    "uv": (".local/share/uv/python/cpython-{version}.0-linux", {}),
    "uv elsewhere": ("uv/cpython-{version}.0-linux", {"UV_PYTHON_INSTALL_DIR": "uv"}),
    "conda": ("conda", {"CONDA_PREFIX": "conda"}),
    "an environment of conda": ("conda/envs/py", {"CONDA_PREFIX": "conda"}),
}


def program(path: Path, text: str) -> None:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def found(tmp_path: Path, wanted: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What the script says where only `tmp_path/bin` and the system's tools are on the path."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "env", "cat"):
        if not (tools / name).exists():
            (tools / name).symlink_to(
                f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
            )
    environ = {"PATH": f"{tmp_path / 'bin'}:{tools}", "HOME": str(tmp_path / "home"), **environ}
    return subprocess.run(
        [SCRIPTS / "find-python", wanted], capture_output=True, text=True, env=environ
    )


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_only_looks_like_an_interpreter_is_passed_over(tmp_path, text):
    """The next candidate that runs is taken: on the path, or of a version manager."""
    program(tmp_path / "bin" / f"python{HERE}", text.format(python=sys.executable))
    bare = tmp_path / "home" / "bare" / "ensurepip.py"  # Debian's Python without python3-venv
    bare.parent.mkdir(parents=True)
    bare.write_text("raise ImportError")
    missing = found(tmp_path, HERE)
    assert (1, "") == (missing.returncode, missing.stdout)
    assert (
        f"no Python {HERE} runs here: install one, or set PYTHON{HERE.replace('.', '')} to its path\n"
        == missing.stderr
    )
    real = REAL.format(python=sys.executable)
    behind = tmp_path / "home" / ".pyenv" / "versions" / f"{HERE}.0" / "bin" / "python"
    program(behind, real)
    assert f"{behind}\n" == found(tmp_path, HERE).stdout
    program(tmp_path / "bin" / "python3", real)
    assert f"{tmp_path / 'bin' / 'python3'}\n" == found(tmp_path, HERE).stdout


@pytest.mark.parametrize(("place", "environ"), MANAGERS.values(), ids=MANAGERS)
def test_what_a_version_manager_has_installed_is_tried(tmp_path, place, environ):
    """Though no name on the path leads there in this folder."""
    home = tmp_path / "home"
    behind = home / place.format(version=HERE) / "bin" / "python"
    program(behind, REAL.format(python=sys.executable))
    told = found(tmp_path, HERE, **{name: str(home / value) for name, value in environ.items()})
    assert f"{behind}\n" == told.stdout, told.stderr


def test_a_later_interpreter_serves_only_where_that_is_said(tmp_path):
    """`3.10+` takes this one, `3.10` does not; PYTHON310 names one by hand, if it is one."""
    program(tmp_path / "bin" / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    assert 1 == found(tmp_path, "3.10").returncode
    assert f"{tmp_path / 'bin' / 'python3'}\n" == found(tmp_path, "3.10+").stdout
    assert 1 == found(tmp_path, "3.99+").returncode
    assert 1 == found(tmp_path, "3.10", PYTHON310=sys.executable).returncode
    named = found(tmp_path, HERE, **{f"PYTHON{HERE.replace('.', '')}": sys.executable})
    assert f"{sys.executable}\n" == named.stdout


@pytest.mark.parametrize(
    "script",
    [path for path in ALL if path.name != "find-python"],
    ids=lambda path: path.name,
)
def test_no_script_counts_on_a_name(script):
    """A name on the path says nothing: an interpreter comes from find-python or an environment."""
    lines = [line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in lines:
        assert not re.search(
            r"command -v|\bwhich |(?<![\w/.$-])(python|node)[\d.]*\b(?! )(?=[\s\"])", line
        ), line


@pytest.mark.parametrize("script", ALL, ids=lambda path: path.name)
def test_every_script_is_sound_shell(script):
    """It runs, stops at the first error, and says at its beginning what it does."""
    assert os.access(script, os.X_OK)
    first, second, *rest = script.read_text().splitlines()
    assert "#!/usr/bin/env bash" == first
    assert second.startswith("# ")
    assert "set -euo pipefail" in rest
    assert 0 == subprocess.run(["bash", "-n", script]).returncode


@pytest.mark.parametrize(
    "script",
    [path for path in ALL if path.name not in {"find-python", "need"}],
    ids=lambda path: path.name,
)
def test_a_script_knows_its_checkout_wherever_it_is_called(tmp_path, script):
    """From any folder, through links, in a folder with blanks, and whatever CDPATH holds."""
    root, elsewhere = tmp_path / "a b" / "re'po $x", tmp_path / "elsewhere"
    head, found_, _ = script.read_text().partition('\ncd "$(')
    assert found_, "it goes to its checkout first"
    line = script.read_text().removeprefix(head).split("\n")[1]
    name = str(script.relative_to(ROOT))
    copy = root / name
    program(copy, f"{head}\n{line}\npwd -P\n")
    for folder in (elsewhere / "scripts", elsewhere / "bin"):
        folder.mkdir(parents=True)
    link, again = elsewhere / "bin" / "run", elsewhere / "bin" / "again"
    link.symlink_to(copy)
    again.symlink_to("run")
    (elsewhere / "repo").symlink_to(root)
    environ = {
        **os.environ,
        "CDPATH": f"{elsewhere}:/",
        "PATH": f"{link.parent}:{os.environ['PATH']}",
    }
    for cwd, called in [
        (root, name),
        (root, f"./{name}"),
        (copy.parent, f"./{script.name}"),
        (elsewhere, str(copy)),
        (elsewhere, f"repo/{name}"),
        (elsewhere, "bin/run"),
        (elsewhere, "again"),
        (elsewhere, "bash"),
    ]:
        words = ["bash", str(copy)] if called == "bash" else [called]
        done = subprocess.run(
            ["bash", "-c", 'exec "$@"', "-", *words],
            cwd=cwd,
            env=environ,
            capture_output=True,
            text=True,
        )
        assert (f"{root}\n", "") == (done.stdout, done.stderr), called


@pytest.mark.parametrize("script", ALL, ids=lambda path: path.name)
def test_no_script_leaves_its_way_to_cdpath(script):
    """`cd folder` looks there first; `cd ./folder` and a whole path do not."""
    assert [] == re.findall(r"\bcd (?![\"./])\S+", script.read_text())


def environment(folder: Path) -> None:
    """An environment that has a pip which does nothing."""
    venv.create(folder, symlinks=True)
    program(folder / "bin" / "pip", f"#!{folder}/bin/python\n")
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "pip.py").write_text("")


def whole(folder: Path) -> bool:
    """What scripts/whole says, which prints nothing."""
    done = subprocess.run([SCRIPTS / "whole", folder], capture_output=True, text=True)
    assert ("", "") == (done.stdout, done.stderr)
    return done.returncode == 0


@pytest.mark.parametrize("name", ["plain", "a b", "x" * 140])
def test_an_environment_is_used_only_where_it_was_made(tmp_path, name):
    """One that was moved or copied names programs of the old place, or of another checkout."""
    made, link = tmp_path / name / "venv", tmp_path / "link"
    assert not whole(made)
    environment(made)
    if name != "plain":  # as pip writes it
        program(made / "bin" / "pip", f'#!/bin/sh\n\'\'\'exec\' "{made}/bin/python" "$0" "$@"\n')
    assert whole(made)
    link.symlink_to(made)
    assert whole(link)
    copied = shutil.copytree(made, tmp_path / "copied", symlinks=True)
    assert not whole(copied)
    moved = made.rename(tmp_path / "moved")
    assert not whole(moved)


@pytest.mark.parametrize("how", ["gone", "shim", "no pip"])
def test_an_environment_whose_interpreter_is_gone_is_not_used(tmp_path, how):
    """A version manager removes an interpreter without asking who stands on it."""
    made = tmp_path / "venv"
    environment(made)
    (made / "bin" / "python").unlink()
    if how == "gone":
        (made / "bin" / "python").symlink_to("/nonexistent/python")
    elif how == "shim":
        program(made / "bin" / "python", BROKEN["a shim with nothing behind it"])
    else:
        (made / "bin" / "pip").unlink()
    assert not whole(made)


def test_an_environment_is_made_once_and_made_anew(tmp_path):
    """Left as it is while its requirements are the same and its interpreter runs."""
    made, wanted, python = tmp_path / "a b", tmp_path / "requirements.txt", tmp_path / "python"
    wanted.write_text("# nothing\n")
    environment(tmp_path / "pattern")
    program(
        python,  # it makes environments that need no wheel of pip
        f'#!/bin/sh\nrm -rf "$4" && cp -r {tmp_path}/pattern "$4"\n'
        f'echo "#!$4/bin/python" > "$4/bin/pip"\n',
    )

    def run() -> str:
        words = [SCRIPTS / "environment", made, wanted, python]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert f"environment: installing {wanted} into {made}\n" == run()
    assert "" == run()
    wanted.write_text("# other\n")
    assert run()
    assert "" == run()
    (made / "bin" / "python").unlink()
    (made / "bin" / "python").symlink_to("/nonexistent/python")
    assert run()
    assert whole(made)
    assert "" == run()


def prove(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call `prove` from a folder."""
    return subprocess.run(
        [os.path.relpath(SCRIPTS / "prove", cwd), *words], cwd=cwd, capture_output=True, text=True
    )


def test_help_lists_every_proof_with_one_sentence(tmp_path):
    """From any folder; without a name the same, as an error."""
    done = prove(tmp_path, "--help")
    assert (0, "") == (done.returncode, done.stderr)
    listed = dict(re.findall(r"^  ([\w-]+) +([A-Z].*\.)$", done.stdout, re.MULTILINE))
    assert set(PROOFS) == set(listed)
    assert max(map(len, done.stdout.splitlines())) <= 104
    assert (2, done.stdout) == (prove(tmp_path).returncode, prove(tmp_path).stdout)


@pytest.mark.parametrize(
    "name", [name for name, path in PROOFS.items() if "python -m tests" not in path.read_text()]
)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_each_proof_explains_itself(tmp_path, name, flag):
    """It shows how it is called, and changes nothing; click explains the programs in tests/."""
    done = prove(tmp_path, name, flag)
    assert (0, "") == (done.returncode, done.stderr)
    assert f"scripts/prove {name}" in done.stdout


@pytest.mark.parametrize("name", ["none", "../test", "", "chaos.py", "-x"])
def test_an_unknown_proof_is_named_beside_those_that_there_are(tmp_path, name):
    """And no other file can be started by that way."""
    done = prove(tmp_path, name) if name else prove(tmp_path, "no-proof")
    assert 2 == done.returncode
    assert all(proof in done.stderr for proof in PROOFS)


def test_every_script_that_a_text_names_is_there():
    """No text names a script that has another name by now, but for the changelog."""
    texts = subprocess.run(
        ["git", "grep", "-ohE", r"scripts/(prove [a-z][a-z0-9-]*|[a-z][a-z-]+)", "--", ".", ":!CHANGELOG.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    there = {f"scripts/{path.name}" for path in SCRIPTS.iterdir()}
    there |= {f"scripts/prove {name}" for name in PROOFS}
    assert set() == {text for text in texts if "prove " in text} - there
    assert set() == {text for text in texts if "prove " not in text} - there


def test_every_file_of_tests_that_a_text_names_is_there():
    """Pages and docstrings name no file that has another name by now."""
    texts = subprocess.run(
        ["git", "grep", "-ohE", r"tests/[a-z_0-9/]+\.py", "--", "*.md", "scripts", "tests",
         ":!CHANGELOG.md", ":!tests/house"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert [] == sorted(text for text in set(texts) if not (ROOT / text).is_file())
