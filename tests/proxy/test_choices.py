"""Parallel samples: each choice of a call is a turn of its own."""

import asyncio

import pytest

from odradek.proxy.calls.call import RETRY_COUNT
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from odradek.streams.stages.continuity import Continuity

from .conftest import END, prompt_ids, whole_prompts

PATH = "/e/e1/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_is_a_turn_with_its_own_tokens(bench, stream):
    """One digest, one prompt written once, numbers in order, and the usage adds up."""
    asked = await bench.ask("hi", n=3, stream=stream)
    if stream:
        texts = ["", "", ""]
        async for chunk in asked:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        texts = [choice.message.content for choice in asked.choices]
    turns = bench.turns()
    assert [0, 1, 2] == [turn.choice for turn in turns] == [turn.seq for turn in turns]
    assert 1 == len({turn.request.digest for turn in turns})
    assert texts == [parsed(turn.reply.message)["content"] for turn in turns]
    for turn, text in zip(turns, texts, strict=True):
        assert [*text.encode(), END] == unpack_ids(turn.completion.ids).tolist()
        assert not turn.untrainable
        assert "stop" == turn.reply.finish_reason
    prompt = prompt_ids([{"role": "user", "content": "hi"}])
    assert {tuple(prompt)} == {tuple(unpack_ids(p)) for p in whole_prompts(turns).values()}
    assert b"" == turns[1].prompt.ids == turns[2].prompt.ids
    assert len(prompt) == sum(turn.usage.prompt_tokens for turn in turns)
    sampled = sum(len(turn.completion.ids) // 4 for turn in turns)
    assert sampled == sum(turn.usage.completion_tokens for turn in turns)


async def test_choices_are_branches_and_the_chosen_one_goes_on(bench):
    """Each sampled token stands in one sequence; the next turn grows the choice it continues."""
    reply = await bench.ask("hi", n=2)
    chosen = reply.choices[1].message.content
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": chosen},
        {"role": "user", "content": "more"},
    ]
    await bench.ask(messages=history)
    continuity = Continuity()
    assert ["first", "branch", "append"] == [continuity.add(turn) for turn in bench.turns()]
    assert [1, 2] == [len(run.turn_ids) for run in continuity.runs]


async def test_a_missing_token_count_spoils_all_choices(bench, engine):
    """The engine counts the tokens of all choices together."""
    engine.mode = "mismatch"
    await bench.ask(n=2)
    assert ["length_mismatch"] * 2 == [turn.untrainable for turn in bench.turns()]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_within_several_choices_is_one_turn_or_each_of_them(bench, engine, stream):
    """An answer that is an error is one turn; a stream that breaks leaves those that had begun."""
    engine.mode = "die" if stream else "error"
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 2, "stream": stream}
    await bench.post(PATH, body, token=bench.token())
    assert [True] * (2 if stream else 1) == [bool(turn.error) for turn in bench.turns()]


async def test_a_retry_gets_all_choices_and_only_then_they_count(make, engine):
    """The log came back between the first choice and the others: nothing is sampled again."""
    import json

    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 3})
    async with make() as bench:
        append = bench.log.append
        taken = 0

        async def once(topic, **record):
            nonlocal taken
            taken += 1
            bench.log.failing = taken == 2
            return await append(topic, **record)

        bench.log.append = once
        asking = [
            await bench.post(
                PATH, body.encode(), token=bench.token(), headers={RETRY_COUNT: str(n)}
            )
            for n in range(2)
        ]
        assert [503, 200] == [status for status, _, _ in asking]
        assert 1 == len(engine.calls)
        assert [(0, 0), (1, 1), (2, 2)] == [(turn.seq, turn.choice) for turn in bench.turns()]


async def test_nobody_sees_a_choice_end_before_all_are_durable(make):
    """The reply waits for the last of its turns."""
    from odradek.infra.bus import MemoryAppender

    class Slow(MemoryAppender):
        def __init__(self):
            super().__init__()
            self.third = asyncio.Event()

        async def append(self, topic, **record):
            if len(self.records) == 2:
                await self.third.wait()
            return await super().append(topic, **record)

    log = Slow()
    async with make(log) as bench:
        asking = asyncio.create_task(bench.ask(n=3))
        await bench.until(lambda: len(log.records) == 2)
        assert not asking.done()
        log.third.set()
        assert 3 == len((await asking).choices)
