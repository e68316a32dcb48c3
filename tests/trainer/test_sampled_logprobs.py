"""From an agent's call to the trainer's own probability: proxy, small engine, assembler, head."""

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from odradek.infra.bus import MemoryAppender
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy.app import Proxy
from odradek.proxy.server import serving
from odradek.proxy.settings import ProxySettings
from odradek.schemas import codec
from odradek.schemas.events import Turn, TurnsEvent
from odradek.streams.stages.continuity import Continuity
from odradek.trainer.engine.server import SmallEngine
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.feed.rows import arrays_of
from odradek.trainer.feed.sampling import drawn_of
from odradek.trainer.models import load_model
from odradek.trainer.step.logprobs import Targets, add_head

pytestmark = pytest.mark.torch
KEY = "k" * 32


async def played(tiny, asks, **settings):
    """The turns of a conversation with these fields in its calls, and the proxy's engines."""
    small = SmallEngine(EngineSettings(model=str(tiny), seed=5))
    log = MemoryAppender()
    async with TestServer(small.app()) as server:
        chosen = ProxySettings(
            port=0, engine_url=str(server.make_url("")), continuation="bridge",
            **settings,
        )  # fmt: skip
        proxy = Proxy(chosen, log, keys=[KEY], proves=True)
        async with (
            serving(proxy, shutdown_s=0.1) as url,
            AsyncOpenAI(
                base_url=f"{url}/e/e1/v1", api_key=mint(Claims(sub="e1"), [KEY]), max_retries=0
            ) as client,
        ):
            messages = [{"role": "user", "content": "Guess a number from 1 to 3."}]
            for more in asks:
                reply = await client.chat.completions.create(
                    model="policy", messages=messages, max_tokens=12, **more
                )
                said = {"role": "assistant", "content": reply.choices[0].message.content}
                messages = [*messages, said, {"role": "user", "content": "low"}]
            proved = proxy.engine.proved and not await proxy.engine.prove()
    events = (codec.decode(record.value, TurnsEvent) for record in log.on("rl.turns.v1"))
    return [event for event in events if isinstance(event, Turn)], proved


def sequence_of(turns):
    continuity = Continuity()
    for turn in turns:
        continuity.add(turn)
    (sequence,) = continuity.sequences()
    return sequence


@pytest.mark.parametrize("temperatures", [(0.7,), (0.7, 0.7, 0.7), (0.3, 1.0, 1.7), (None, 0.7)])
async def test_the_trainers_probabilities_are_the_engines_at_whatever_temperature(
    tiny, temperatures
):
    """Within 1e-4, token by token, several temperatures in one sequence; its engine is proved."""
    asks = [{} if one is None else {"temperature": one} for one in temperatures]
    turns, proved = await played(tiny, asks)
    assert proved
    sequence = sequence_of(turns)
    assert [1.0 if one is None else one for one in temperatures] == [
        span.temperature for span in sequence.spans
    ]
    ids, mask, logprobs = arrays_of(sequence)
    drawn = drawn_of(sequence, len(ids))
    assert (mask == drawn.trained).all()
    model = load_model(tiny)
    add_head(model)
    places = np.flatnonzero(mask)
    found = model(
        input_ids=torch.tensor(ids)[None],
        targets=Targets(
            torch.tensor(places - 1),
            torch.tensor(ids[places]),
            torch.tensor(drawn.temperatures[places]),
        ),
    ).logprobs.detach()
    assert 1e-4 > np.abs(found.numpy() - logprobs[places]).max()


async def test_under_force_an_agents_own_temperature_gives_way(tiny):
    """Its other fields, too, before the small engine, which would refuse them."""
    asks = [{"temperature": 0.2, "top_p": 0.5}, {"frequency_penalty": 1.0, "temperature": 0}]
    turns, _ = await played(tiny, asks, sampling="force", temperature=0.9)
    assert [(0.9, "")] * 2 == [
        (span.temperature, span.altered_by) for span in sequence_of(turns).spans
    ]


async def test_a_reply_that_reached_its_limit_is_told_to_its_episode(tiny):
    """The small engine's `length`, beside one that ended by itself or not."""
    turns, _ = await played(tiny, [{}, {"temperature": 5.0}])
    assert [turn.reply.finish_reason == "length" for turn in turns] == [
        span.truncated for span in sequence_of(turns).spans
    ]
