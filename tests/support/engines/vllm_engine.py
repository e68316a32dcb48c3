"""A real vLLM for tests: `scripts/prove vllm` makes its environment and names its Python."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from threading import Thread

PYTHON = os.environ.get("ODRADEK_ENGINE_VLLM", "")
FLAGS = ("--enforce-eager", "--gpu-memory-utilization", "0.2")
"""The second is of the CPU's memory here; by default vLLM wants 0.92 of it to be free."""


@contextmanager
def vllm(folder, log, *flags):
    """A vLLM that serves a model's folder, writing its lines into a file; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "odradek.infra.app.cli", "engine", "vllm", "--python", PYTHON,
               "--model", str(folder), "--port", str(port), "--", *FLAGS, *flags]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    with log.open("w") as lines:
        reader = Thread(target=_copy, args=(process.stdout, lines))
        try:
            for line in process.stdout:
                print(line, end="", file=lines, flush=True)
                if "ready: engine" in line:
                    break
            assert process.poll() is None, log.read_text()[-4000:]
            reader.start()
            yield f"http://127.0.0.1:{port}"
        finally:
            _end(process)
            if reader.ident is not None:
                reader.join()
            process.stdout.close()


def _copy(pipe, lines):
    """Its lines as they come: a pipe that nobody empties would stop it."""
    for line in pipe:
        print(line, end="", file=lines, flush=True)


def _end(process):
    process.send_signal(signal.SIGTERM)
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()
