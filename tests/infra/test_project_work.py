"""What `odradek up` keeps below `.odradek/`, and what is said where it cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from odradek.agents.trust.keys import KeyRing
from odradek.infra.app.cli.start import init, kafka, up
from odradek.infra.app.project.work import request_keys, token_keys, write_environment
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError

PLACES = SimpleNamespace(
    proxy_url="http://127.0.0.1:1", token_keys="k'$(id)`id`\\", request_keys={}
)


def blocked(path: Path, how: str) -> None:
    """Something stands where a file or folder should."""
    if how == "file":
        path.write_text("")
    elif how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path)
    else:
        path.symlink_to("/nonexistent/folder")


@pytest.mark.parametrize("how", ["file", "link", "loop"])
def test_a_project_that_cannot_be_written_is_one_line(tmp_path: Path, how: str) -> None:
    """Before anything is started: a read-only mount, another user's folder, a file in the way."""
    init.write(tmp_path)
    blocked(tmp_path / ".odradek", how)
    answer = CliRunner().invoke(up.command, ["--project", str(tmp_path)])
    assert isinstance(answer.exception, ProjectError), answer.exception
    assert f"cannot use {tmp_path / '.odradek'}: " in str(answer.exception)


@pytest.mark.parametrize("how", ["folder", "link", "loop"])
def test_its_files_that_cannot_be_written_are_named(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signing key and what another terminal sources."""
    monkeypatch.delenv("ODRADEK_TOKEN_KEYS", raising=False)
    for name in ("token-key", "env"):
        blocked(tmp_path / name, how)
    with pytest.raises(ProjectError, match=r"cannot use .*/token-key: "):
        token_keys(tmp_path)
    with pytest.raises(ProjectError, match=r"cannot use .*/env: "):
        write_environment(tmp_path, BusSettings(bootstrap_servers="h:1"), PLACES)


def test_what_a_terminal_sources_sets_variables_only(tmp_path: Path) -> None:
    """Whatever they hold, in a file that only its user reads."""
    bus = BusSettings.model_construct(
        bootstrap_servers="h:1", topic_prefix="ü $x.", topic_partitions=3
    )
    old = os.umask(0)
    try:
        write_environment(tmp_path, bus, PLACES)
    finally:
        os.umask(old)
    assert 0o600 == (tmp_path / "env").stat().st_mode & 0o777
    script = f". {tmp_path / 'env'}; exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shell = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    given = json.loads(shell.stdout)
    assert PLACES.token_keys == given["ODRADEK_TOKEN_KEYS"]
    assert "ü $x." == given["ODRADEK_TOPIC_PREFIX"]
    assert "3" == given["ODRADEK_TOPIC_PARTITIONS"]


@pytest.mark.parametrize("port", ["-1", "65536", "70000", "x", "9092.0"])
def test_a_port_that_is_none_is_one_line(tmp_path: Path, port: str) -> None:
    """Nothing is made then."""
    folder = tmp_path / "kafka"
    answer = CliRunner().invoke(kafka.command, ["start", "--dir", str(folder), "--port", port])
    assert 2 == answer.exit_code
    assert "--port" in answer.output
    assert not folder.exists()


def test_keys_of_requests_are_made_once_where_hosts_want_signatures(tmp_path: Path) -> None:
    """On loopback there are none; the dispatcher's may send samples."""
    assert {} == request_keys(tmp_path, BusSettings(bootstrap_servers="127.0.0.1:1"))
    far = BusSettings(bootstrap_servers="kafka:1")
    given = request_keys(tmp_path, far)
    private, public = (Path(path) for path in given.values())
    (known,) = KeyRing(public)
    assert ("dispatcher", True) == (known.jwk.own, known.jwk.samples)
    assert 0o600 == private.stat().st_mode & 0o777
    assert given == request_keys(tmp_path, far)
    assert 1 == len(list(public.iterdir()))
