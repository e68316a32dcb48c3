"""`odradek engine vllm`, with a program in vLLM's place: what it is told and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from odradek.trainer.engine.vllm import refuse_flags, refuse_version
from odradek.trainer.errors import BadSettings

pytestmark = pytest.mark.torch

SERVER = """
import http.server, os, sys
print("told", " ".join(sys.argv[1:]), os.environ["VLLM_SERVER_DEV_MODE"], flush=True)
if "--fail" in sys.argv:
    sys.exit(3)
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
"""


@pytest.fixture
def python(tmp_path) -> Path:
    """A Python whose vLLM is the program above."""
    package = tmp_path / "site" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(SERVER)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def start(python, *flags):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    return subprocess.Popen(
        [sys.executable, "-m", "odradek.infra.app.cli", "engine", "vllm", "--python", str(python),
         "--model", "m", "--port", str(port), "--", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("ODRADEK")},
    )  # fmt: skip


def test_it_waits_until_it_serves_and_ends_it_with_itself(python):
    """Ready once /health answers; SIGTERM ends the whole group."""
    process = start(python, "--max-model-len", "64")
    for line in process.stderr:
        if "ready: engine" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert 0 == process.returncode, err
    assert "--logprobs-mode processed_logprobs" in out
    assert "--max-model-len 64 1" in out


def test_a_vllm_that_ends_by_itself_is_one_clear_line(python):
    """With its exit code, and exit code 2."""
    process = start(python, "--fail")
    _, err = process.communicate(timeout=60)
    assert 2 == process.returncode
    assert "odradek: vLLM ended with exit code 3 before it served" in err.splitlines()[-1]


def test_an_old_vllm_is_one_clear_line(python):
    """Before it ends with its own words about an argument that it does not know."""
    package = python.parent / "site" / "vllm" / "__init__.py"
    package.write_text("print('hello')\n__version__ = '0.29.1'\n")
    process = start(python)
    _, err = process.communicate(timeout=60)
    assert 2 == process.returncode
    assert "has vLLM 0.29.1, and training needs 0.30 or later" in err.splitlines()[-1]
    assert "install --upgrade 'vllm>=0.30'" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "version", ["0.10.2", "0.9", "0.29.0", "0.29.9rc1", "0.29.1.dev5+g1234567", "0.2.7"]
)
def test_a_vllm_that_lacks_what_training_needs_is_refused(version):
    """Whatever stands behind its first two numbers."""
    with pytest.raises(BadSettings, match=r"0\.30 or later"):
        refuse_version(version, "python")


@pytest.mark.parametrize(
    "version", ["0.30.0", "0.30.0rc1", "0.33.0.dev12+g1234567", "0.100", "1.0", "12.3",
                "0.1.dev1+g1234567", "dev", "unknown", ""]
)  # fmt: skip
def test_a_later_one_is_taken_and_so_is_a_build_that_does_not_say(version):
    """Who builds it from source knows what it has."""
    refuse_version(version, "python")


@pytest.mark.parametrize(
    "flags",
    [
        ["--logprobs-mode", "raw_logprobs"],
        ["--logprobs-mode=raw_logits"],
        ["--logprobs_mode", "processed_logits"],
        ["--max-model-len", "64", "--logprobs_mode=raw_logprobs"],
        ["--logprobs-mode"],
    ],
)
def test_a_flag_that_training_cannot_live_with_is_refused(flags):
    """In every way in which vLLM takes it."""
    with pytest.raises(BadSettings, match="processed_logprobs is given"):
        refuse_flags(flags)


@pytest.mark.parametrize(
    "flags", [[], ["--logprobs-mode", "processed_logprobs"], ["--max-model-len=64"], ["-O", "3"]]
)
def test_other_flags_are_left_to_vllm(flags):
    """It knows them better."""
    refuse_flags(flags)


def test_a_python_without_vllm_is_one_clear_line():
    """It says how to make an environment that has it."""
    process = start(Path(sys.executable))
    _, err = process.communicate(timeout=60)
    assert 2 == process.returncode
    assert "has no vLLM" in err.splitlines()[-1]
