"""Several replicas: an episode may move from one to the other, and the log makes one of it."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from odradek.infra.bus import MemoryAppender
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy.engines.client import Engine
from odradek.proxy.engines.pool import Pool
from odradek.schemas.events import Episode
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.proxy.proxy_bench import KEY
from tests.support.schemas.event_builders import opened, reward, tell

BODY = {"model": "policy", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def replicas(make):
    """Two proxies over one log and one engine."""

    @asynccontextmanager
    async def start():
        log = MemoryAppender(partitions=1)
        async with make(log) as first, make(log) as second:
            yield first, second

    return start


def assembled(bench, episode="e1"):
    """What the assembler makes of the log, and the reasons of its dead letters."""
    told = [opened(episode), reward(episode), *bench.events(episode)]
    out, letters = tell(ASSEMBLE, told)
    return [event for event in out if isinstance(event, Episode)], letters


async def play(benches, *, reply=lambda reply: reply.choices[0].message):
    """A chat of which each turn goes to the next of these proxies."""
    messages = [{"role": "user", "content": "begin"}]
    for n, bench in enumerate(benches):
        answer = await bench.ask(messages=messages)
        messages += [reply(answer), {"role": "user", "content": f"and then {n}"}]


@pytest.mark.parametrize("order", ["aaabbb", "aaabba", "ababab", "abbbbb"])
async def test_an_episode_that_moves_ends_complete(replicas, order):
    """Once, back, at every turn: one sequence of six turns, none lost, none twice, no break."""
    async with replicas() as (first, second):
        await play([{"a": first, "b": second}[one] for one in order])
        assert (await second.seal())[0] == 200
        (episode,), letters = assembled(first)
        assert not letters
        assert (str(episode.outcome), episode.breaks) == ("completed", ())
        (sequence,) = episode.sequences
        assert len(sequence.turn_ids) == 6
        writers = {turn.writer for turn in first.turns()}
        assert writers == {first.proxy.writer, second.proxy.writer}


async def test_what_a_token_still_opens_elsewhere_after_the_seal_counts_for_nothing(replicas):
    """Another replica does not know of the seal: what it records is dead-lettered, not trained."""
    async with replicas() as (first, second):
        await first.ask()
        assert (await first.seal())[0] == 200
        assert (await first.post("/v1/chat/completions", BODY, token=first.token()))[0] == 409
        await second.ask("one more")
        (episode,), letters = assembled(first)
        assert ["closed_or_unknown"] == letters
        assert (str(episode.outcome), 1) == ("completed", len(episode.sequences))
        assert len(episode.sequences[0].turn_ids) == 1


async def test_a_seal_that_is_repeated_elsewhere_changes_nothing(replicas):
    """A host whose replica died on it asks the next: the first EpisodeSealed in the log counts."""
    async with replicas() as (first, second):
        await first.ask()
        assert (await first.seal())[1]["n_turns"] == 1
        assert (await second.seal(outcome="failed"))[1]["n_turns"] == 0
        (episode,), letters = assembled(first)
        assert ["closed_or_unknown"] == letters
        assert str(episode.outcome) == "completed"
        # From now on the other one knows too.
        assert (await second.post("/v1/chat/completions", BODY, token=second.token()))[0] == 409


async def test_a_call_in_flight_elsewhere_at_the_seal_does_not_change_the_episode(replicas, engine):
    """The seal stands; the late turn is a dead letter."""
    async with replicas() as (first, second):
        await first.ask()
        engine.gate.clear()
        engine.entered.clear()
        asking = asyncio.create_task(second.ask("slow"))
        await engine.entered.wait()
        assert (await first.seal())[0] == 200
        engine.gate.set()
        await asking
        (episode,), letters = assembled(first)
        assert ["closed_or_unknown"] == letters
        assert str(episode.outcome) == "completed"


async def test_a_retry_at_another_replica_is_trained_once(replicas):
    """The first replica acked the turn, and died before its client had it."""
    async with replicas() as (first, second):
        token = mint(Claims(sub="e1"), [KEY])
        path = "/e/e1/v1/chat/completions"
        assert (await first.post(path, BODY, token=token))[0] == 200
        again = {"x-stainless-retry-count": "1"}
        assert (await second.post(path, BODY, token=token, headers=again))[0] == 200
        await second.seal()
        (episode,), letters = assembled(first)
        assert not letters
        lost, released = first.turns()
        assert [released.turn_id] == [t for s in episode.sequences for t in s.turn_ids]
        assert {lost.turn_id: "superseded"} == episode.untrained_turns


def test_replicas_agree_on_an_episodes_engine():
    """Rendezvous hashing needs no word between them: the prefix cache stays warm."""
    # No health check runs here: these engines are names only.
    first, second = (
        Pool([Engine(f"http://{name}") for name in names], lambda: 0.0) for names in ("abc", "cab")
    )
    for n in range(20):
        orders = [
            [member.engine.url for member in pool.candidates(f"e{n}")] for pool in (first, second)
        ]
        assert orders[0] == orders[1]
