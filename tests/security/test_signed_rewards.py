"""A source is a claim, a signature is proof (S4)."""

import pytest

from odradek.infra.bus import MemoryAppender, Record
from odradek.infra.client import publish_reward
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.reward_signatures import HEADER, JudgeSettings, Verifier, sign
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.events import Reward
from odradek.schemas.topics import DLQ, REWARDS, TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.intake import intake
from tests.support.schemas.event_builders import reward

KEY, OTHER = "j" * 32, "x" * 32


async def taken(headers=(), *, value=None, keys=None, sources=None):
    """What becomes of a reward at the intake: "" or the reason of its dead letter."""
    log = MemoryAppender(1)
    value = codec.encode(reward()) if value is None else value
    await log.append(REWARDS.name, key="e1", value=value, headers=headers)
    await MemoryDriver(log, intake(sources, Verifier(keys))).step()
    (out,) = [one for one in log.records if one.topic in {TURNS.name, DLQ.name}]
    return header(out.headers, "dlq-reason") or ""


async def test_only_a_source_that_is_allowed_may_judge():
    """Patterns of sources, by component."""
    assert "" == await taken(sources={"game": ["/agent/*"]})
    assert "source_not_allowed" == await taken(sources={"game": ["/reward/*"]})
    assert "" == await taken(sources={"other": []})


async def test_a_source_that_signs_counts_only_with_its_signature():
    """A forger knows the source's name, and the form of a signature, but not the key."""
    value = codec.encode(reward())
    keys = {"/agent/*": KEY}
    assert "unsigned" == await taken(keys=keys)
    assert "" == await taken(((HEADER, sign(value, KEY)),), keys=keys)
    for forged in (sign(value, OTHER), b"0" * 64, b"", "é".encode(), b"\xff", b"x" * 100_000):
        assert await taken(((HEADER, forged),), keys=keys) in {"bad_signature", "unsigned"}


async def test_a_signature_says_nothing_about_another_reward():
    """Value, component and episode are all part of what is signed."""
    stolen = ((HEADER, sign(codec.encode(reward(value=0.0)), KEY)),)
    assert "bad_signature" == await taken(stolen, keys={"/agent/*": KEY})


async def test_a_source_without_a_key_is_as_before():
    """Keys are asked of whom they are configured for."""
    assert "" == await taken(keys={"/reward/*": KEY})


async def test_what_clients_publish_is_signed_where_a_key_is_set(monkeypatch):
    """And passes the intake that has the same key."""
    monkeypatch.setenv("ODRADEK_JUDGE_KEY", KEY)
    log = MemoryAppender(1)
    await publish_reward(log, Reward(episode_id="e1", component="c", value=1.0, source="/people/a"))
    (sent,) = log.on(REWARDS.name)
    keys = Verifier({"/people/*": KEY})
    assert "" == keys.fault("/people/a", sent.value, sent.headers)
    assert KEY.encode() not in b"".join(value for _, value in sent.headers)


def test_agent_hosts_sign_what_their_agents_earned(monkeypatch):
    """By the key in the host's environment, which programs do not inherit."""
    from types import SimpleNamespace

    from odradek.agents.attempt import events

    monkeypatch.setenv("ODRADEK_JUDGE_KEY", KEY)
    run = SimpleNamespace(episode_id="e1", called=SimpleNamespace(traceparent=None))
    entry = events.reward(run, "game", 1.0, "", agent="hilo", source="/agents/hilo")
    keys = Verifier({"agent:*": KEY})
    assert "" == keys.fault("agent:hilo", entry.value, entry.headers)


@pytest.mark.parametrize("told", [{"key": "short"}, {"keys": {"*": "short"}}, {"keys": {"*": ""}}])
def test_a_short_key_is_refused_at_start(told):
    """A key that can be guessed proves nothing; the message does not show it."""
    with pytest.raises(ProjectError, match="32 characters") as caught:
        JudgeSettings(**told).checked()
    assert "short" not in str(caught.value).replace("too short", "")


def test_keys_are_masked_where_settings_are_shown():
    """As every secret."""
    shown = repr(JudgeSettings(key=KEY, keys={"*": OTHER}))
    assert KEY not in shown
    assert OTHER not in shown


def test_a_reward_is_a_record_whose_dead_letter_shows_no_signature_key():
    """The letter of a forged reward says what is wrong, and quotes nothing."""
    assert "unsigned" == Verifier({"*": KEY}).fault("s", Record("t", 0, 0, "k", b"{}").value, ())
