"""What an engine's log probabilities are of: found out before anything of it can be trained on."""

import asyncio
import json
import math
import random

import pytest
from aiohttp import ClientSession

from odradek.proxy.engines.logprobs_mode import COOL, WARM, LogprobsMode, doubt, judge
from odradek.proxy.engines.logprobs_probe import TOP

HI = {"messages": [{"role": "user", "content": "x"}]}


def told(logits, temperature, *, top=TOP):
    """What an engine with these logits tells of its likeliest tokens."""
    scaled = [value / temperature for value in logits]
    shift = math.log(sum(map(math.exp, scaled)))
    likeliest = sorted(range(len(logits)), key=lambda n: -logits[n])[:top]
    return {f"t{n}": scaled[n] - shift for n in likeliest}


def logits(seed, spread, n=50):
    chance = random.Random(seed)
    return [chance.gauss(0, spread) for _ in range(n)]


def shaken(said, seed, by):
    """The same from another batch, or in bf16."""
    chance = random.Random(seed)
    return {token: min(0.0, value + chance.uniform(-by, by)) for token, value in said.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0, 12.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_log_probabilities_after_the_temperature_are_known_by_their_distances(seed, spread, noise):
    """Whether the policy is all but uniform or all but certain, and with an engine's own noise."""
    at = logits(seed, spread)
    by = noise * min(spread, 1)
    warm, cool = (shaken(told(at, t), seed + t, by) for t in (WARM, COOL))
    assert LogprobsMode.PROCESSED is judge(warm, cool)
    assert LogprobsMode.RAW is judge(warm, shaken(told(at, WARM), 7, by))


@pytest.mark.parametrize("temperature", [WARM, COOL])
def test_logits_are_no_log_probabilities(temperature):
    """Those after the temperature double their distances, too."""
    at = logits(1, 2.0)
    first = {f"t{n}": at[n] for n in range(TOP)}
    assert LogprobsMode.RAW is judge(first, {t: value / temperature for t, value in first.items()})
    low = {t: value - 20 for t, value in first.items()}
    assert LogprobsMode.RAW is judge(low, {t: value / temperature for t, value in low.items()})


@pytest.mark.parametrize(
    ("warm", "cool"),
    [
        ({}, {}), ({"a": -1.0}, {"a": -2.0}), ({"a": -1.0, "b": -2.0}, {}),
        ({"a": -1.0, "b": -2.0}, {"c": -1.0, "d": -2.0}),
        ({"a": -1.0, "b": -1.0}, {"a": -1.0, "b": -1.0}),
        ({"a": -1.0, "b": -math.inf}, {"a": -2.0, "b": -math.inf}),
        ({"a": math.nan, "b": -1.0}, {"a": -2.0, "b": -1.0}),
    ],
)  # fmt: skip
def test_what_proves_nothing_is_said_to_prove_nothing(warm, cool):
    """An engine that tells no likeliest tokens, or a distribution that no temperature moves."""
    assert LogprobsMode.UNPROVED is judge(warm, cool)


@pytest.mark.parametrize(
    ("mode", "sampling", "expected"),
    [
        (None, {"temperature": 0.7}, ""), (LogprobsMode.PROCESSED, {"temperature": 0.7}, ""),
        (LogprobsMode.UNPROVED, {"temperature": 1}, ""), (LogprobsMode.UNPROVED, {"temperature": "1.0"}, ""),
        (LogprobsMode.UNPROVED, {"temperature": 0.7}, "logprobs_mode"), (LogprobsMode.UNPROVED, {}, "logprobs_mode"),
        (LogprobsMode.RAW, {"temperature": 1}, "logprobs_mode"), (LogprobsMode.RAW, {}, "logprobs_mode"),
    ],
)  # fmt: skip
def test_at_temperature_one_it_makes_no_difference_whether_it_is_applied(mode, sampling, expected):
    """So an engine that proves nothing is trusted there; one that is wrong, nowhere."""
    assert expected == doubt(mode, sampling)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("tops", "untrainable"),
    [("processed", ["", ""]), ("raw", ["logprobs_mode"] * 2), ("logits", ["logprobs_mode"] * 2),
     ("none", ["", "logprobs_mode"])],
)  # fmt: skip
async def test_turns_of_an_engine_are_as_good_as_its_log_probabilities(
    make, engine, tops, untrainable, stream
):
    """The agent is served all the same; the turn says why it cannot be trained on."""
    engine.tops = tops
    async with make(proves=True) as bench:
        for temperature in (1.0, 0.7):
            body = {**HI, "temperature": temperature, "stream": stream}
            status, *_ = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
            assert 200 == status
        assert untrainable == [turn.untrainable for turn in bench.turns()]


async def test_an_engine_is_asked_once_and_nothing_of_it_is_recorded(make, engine):
    """At two temperatures, with neutral sampling; as soon as it is up."""
    async with make(proves=True) as bench:
        await bench.until(lambda: bench.proxy.engine.proved)
        assert not bench.log.records
        for _ in range(3):
            await bench.ask()
        assert [WARM, COOL] == [asked["temperature"] for asked in engine.probes]
        assert {(1, -1, 0)} == {(p["top_p"], p["top_k"], p["min_p"]) for p in engine.probes}
        assert {"policy"} == {asked["model"] for asked in engine.probes}
        assert (3, 3) == (len(engine.calls), len(bench.turns()))


async def test_calls_that_come_together_ask_it_together(make, engine):
    """Whoever is second waits for the first one's answer."""
    async with make(proves=True) as bench:
        await asyncio.gather(*(bench.ask(str(n), f"e{n}") for n in range(8)))
        assert 2 == len(engine.probes)


@pytest.mark.parametrize("tops", ["raw", "processed"])
async def test_a_proxy_is_not_ready_before_an_engine_that_nothing_can_be_learned_from(
    make, engine, tops
):
    """It says what to do, to who waits for it and in its log."""
    engine.tops = tops
    async with make(proves=True) as bench, ClientSession() as session:
        async with session.get(bench.url + "/readyz") as answer:
            found = await answer.json()
        assert (503 if tops == "raw" else 200) == answer.status
        assert (tops == "raw") == ("--logprobs-mode processed_logprobs" in found.get("engine", ""))


async def test_an_engine_that_proves_nothing_is_asked_thrice(make, engine, caplog):
    """Then a line says what can be trained on."""
    engine.tops = "none"
    async with make(proves=True) as bench:
        await bench.until(lambda: bench.proxy.engine.proved)
        assert 6 == len(engine.probes)
    assert "only what it samples at temperature 1" in caplog.text


@pytest.mark.parametrize("tops", ["processed", "raw"])
@pytest.mark.parametrize("words", ["%s", "unknown field `%s`, expected `temperature`, `logprobs`"])
async def test_an_engine_that_refuses_our_fields_proves_itself_without(make, engine, tops, words):
    """As its calls go without them."""
    engine.picky, engine.tops = True, tops
    unknown = ("top_k", "min_p", "repetition_penalty")
    engine.refuses = lambda asked: next((words % name for name in unknown if name in asked), "")
    async with make(proves=True) as bench:
        await bench.ask(temperature=0.5)
        assert ("logprobs_mode" if tops == "raw" else "") == bench.turns()[0].untrainable
        assert {WARM, COOL} == {asked["temperature"] for asked in engine.probes}


@pytest.mark.parametrize("tops", ["processed", "raw"])
@pytest.mark.parametrize("status", [200, 201, 206])
async def test_every_answer_that_counts_as_a_reply_is_doubted(make, engine, tops, status):
    """Whatever the engine calls its success."""
    engine.tops, engine.status = tops, status
    async with make(proves=True) as bench:
        await bench.until(lambda: bench.proxy.engine.proved)
        assert (await bench.post("/e/e1/v1/chat/completions", HI, token=bench.token()))[0] < 300
        assert ("logprobs_mode" if tops == "raw" else "") == bench.turns()[0].untrainable


async def test_an_engine_that_is_busy_is_asked_again_later(make, engine):
    """Weights are being swapped: that says nothing of its log probabilities."""
    engine.mode = "busy"
    async with make(proves=True) as bench:
        for _ in range(4):
            await bench.proxy.engine.prove()
        assert not bench.proxy.engine.proved
        engine.mode = "ok"
        await bench.ask(temperature=0.5)
        assert "" == bench.turns()[-1].untrainable


async def test_what_answers_after_a_broken_connection_is_asked_anew(make, engine):
    """It may have been started with other flags."""
    async with make(proves=True) as bench:
        await bench.ask("a")
        engine.mode, engine.tops = "drop", "raw"
        await bench.post("/e/e1/v1/chat/completions", HI, token=bench.token())
        engine.mode = "ok"
        await bench.ask("b")
        first, _, last = bench.turns()
        assert ("", "logprobs_mode") == (first.untrainable, last.untrainable)


async def test_other_reasons_come_first(make, engine):
    """A turn without ids has no log probabilities to doubt."""
    engine.tops, engine.mode = "raw", "no_ids"
    async with make(proves=True) as bench:
        await bench.ask()
        assert "no_token_ids" == bench.turns()[0].untrainable


async def test_a_probe_is_no_traffic_of_an_episode(make, engine):
    """It has no salt, no trace, and asks for a token."""
    async with make(proves=True) as bench:
        await bench.ask()
        (asked, _) = engine.probes
        assert not {"cache_salt", "return_token_ids", "stream"} & asked.keys()
        assert 1 == asked["max_tokens"]
        assert json.dumps(asked)
