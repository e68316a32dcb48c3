"""`continuation=bridge` before a real vLLM: `scripts/prove vllm` makes its environment and runs this."""

from contextlib import contextmanager

import pytest

from tests.support.engines.vllm_engine import vllm
from tests.support.proxy.agent_episodes import EPISODES, TURNS, played, reasons, sequences
from tests.support.trainer.hilo import random_play

pytestmark = [pytest.mark.vllm, pytest.mark.torch, pytest.mark.timeout(900)]
CLOSING = "<|im_end|>\n"
DROPPED = "{{ '' if message['role'] == 'assistant' else '<|im_end|>' }}\n"
SAID = "{{ message['content'] }}"
REWRITTEN = "{{ message['content'] if loop.last or message['role'] != 'assistant' else 'said' }}"


@contextmanager
def templated(folder, template):
    """A vLLM that serves the tiny model with a chat template; gives its address."""
    path = folder / "template.jinja"
    path.write_text(template)
    with vllm(
        folder, folder / "log", "--max-model-len", "512", "--chat-template", str(path)
    ) as url:
        yield url


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

    with templated(tiny, CHATML.replace(CLOSING, DROPPED)) as url:
        rendered = await played(url, "render")
        bridged = [await played(url, "bridge", stream=stream) for stream in (False, True)]
    assert [TURNS] * EPISODES == [sequences(turns) for turns in rendered]
    for episodes in bridged:
        assert [1] * EPISODES == [sequences(turns) for turns in episodes]
        assert {"no_earlier_reply": EPISODES, "": EPISODES * (TURNS - 1)} == reasons(episodes)


async def test_a_template_of_vllms_that_rewrites_replies_is_found_out(tiny):
    """Each call goes out rendered, with the first index that differs."""
    from odradek.trainer.engine.tiny import CHATML

    with templated(tiny, CHATML.replace(SAID, REWRITTEN)) as url:
        episodes = await played(url, "bridge")
    assert {
        "no_earlier_reply": EPISODES,
        "not_prefix_monotonic": EPISODES * (TURNS - 1),
    } == reasons(episodes)
