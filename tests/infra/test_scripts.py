"""Scripts try an interpreter before they count on it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
BROKEN = {
    "a shim with nothing behind it": "#!/bin/sh\necho 'pyenv: python: command not found' >&2\nexit 127\n",
    "another version": "#!/bin/sh\nexit 1\n",
    "no program": "not a program",
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
    program(tmp_path / "bin" / f"python{HERE}", text)
    missing = found(tmp_path, HERE)
    assert (1, "") == (missing.returncode, missing.stdout)
    assert (
        f"no Python {HERE} runs here: install one, or set PYTHON{HERE.replace('.', '')} to its path\n"
        == missing.stderr
    )
    real = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    behind = tmp_path / "home" / ".pyenv" / "versions" / f"{HERE}.0" / "bin" / "python"
    program(behind, real)
    assert f"{behind}\n" == found(tmp_path, HERE).stdout
    program(tmp_path / "bin" / "python3", real)
    assert f"{tmp_path / 'bin' / 'python3'}\n" == found(tmp_path, HERE).stdout


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
    sorted(path for path in SCRIPTS.iterdir() if path.name != "find-python"),
    ids=lambda path: path.name,
)
def test_no_script_counts_on_a_name(script):
    """A name on the path says nothing: an interpreter comes from find-python or an environment."""
    lines = [line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in lines:
        assert not re.search(
            r"command -v|\bwhich |(?<![\w/.$-])(python|node)[\d.]*\b(?! )(?=[\s\"])", line
        ), line


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_every_script_is_sound_shell(script):
    """It runs, stops at the first error, and says at its beginning what it does."""
    assert os.access(script, os.X_OK)
    first, second, *rest = script.read_text().splitlines()
    assert "#!/usr/bin/env bash" == first
    assert second.startswith("# ")
    assert "set -euo pipefail" in rest
    assert 0 == subprocess.run(["bash", "-n", script]).returncode
