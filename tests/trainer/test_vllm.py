"""`odradek engine vllm`, with a program in vLLM's place: what it is told and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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
        [sys.executable, "-m", "odradek.infra.cli", "engine", "vllm", "--python", str(python),
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


def test_a_python_without_vllm_is_one_clear_line():
    """It says how to make an environment that has it."""
    process = start(Path(sys.executable))
    _, err = process.communicate(timeout=60)
    assert 2 == process.returncode
    assert "has no vLLM" in err.splitlines()[-1]
