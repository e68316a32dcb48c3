"""`continuation=bridge` before a real vLLM: `scripts/e2e-vllm` makes its environment and runs this."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from carried import EPISODES, TURNS, played, reasons, sequences
from hilo import random_play

pytestmark = [pytest.mark.vllm, pytest.mark.torch, pytest.mark.timeout(900)]
PYTHON = os.environ.get("ODRADEK_ENGINE_VLLM", "")
CLOSING = "<|im_end|>\n"
DROPPED = "{{ '' if message['role'] == 'assistant' else '<|im_end|>' }}\n"
SAID = "{{ message['content'] }}"
REWRITTEN = "{{ message['content'] if loop.last or message['role'] != 'assistant' else 'said' }}"


@contextmanager
def vllm(folder, template):
    """A vLLM that serves the tiny model with a chat template; gives its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    (folder / "template.jinja").write_text(template)
    process = subprocess.Popen(
        [sys.executable, "-m", "odradek.infra.cli", "engine", "vllm", "--python", PYTHON,
         "--model", str(folder), "--port", str(port), "--", "--enforce-eager",
         "--max-model-len", "512", "--chat-template", str(folder / "template.jinja")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
    )  # fmt: skip
    try:
        for line in process.stderr:
            if "ready: engine" in line:
                break
        assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            process.stderr.readline()
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny model."""
    from odradek.trainer.engine.tiny import make_tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, random_play(256, 0), seed=0, steps=40)
    return folder


async def test_vllm_carries_ids_on(tiny):
    """A dropped separator: as many sequences as turns when rendered, one when bridged, streams too."""
    from odradek.trainer.engine.tiny import CHATML

    with vllm(tiny, CHATML.replace(CLOSING, DROPPED)) as url:
        rendered = await played(url, "render")
        bridged = [await played(url, "bridge", stream=stream) for stream in (False, True)]
    assert [TURNS] * EPISODES == [sequences(turns) for turns in rendered]
    for episodes in bridged:
        assert [1] * EPISODES == [sequences(turns) for turns in episodes]
        assert {"new": EPISODES, "": EPISODES * (TURNS - 1)} == reasons(episodes)


async def test_a_template_of_vllms_that_rewrites_replies_is_found_out(tiny):
    """Each call goes out rendered, with the first index that differs."""
    from odradek.trainer.engine.tiny import CHATML

    with vllm(tiny, CHATML.replace(SAID, REWRITTEN)) as url:
        episodes = await played(url, "bridge")
    assert {"new": EPISODES, "not_prefix_monotonic": EPISODES * (TURNS - 1)} == reasons(episodes)
