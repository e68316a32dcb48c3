"""Episode tokens open what they were minted for, and nothing else."""

import time

import jwt
import pytest

from odradek.infra.errors import ProjectError, TokenError
from odradek.infra.runtime import episode_tokens

KEYS = [episode_tokens.new_key()]


def test_a_token_says_what_it_was_minted_with():
    """The claims come back as they went."""
    claims = episode_tokens.Claims(
        sub="e", agent="hilo", sampling={"temperature": 0}, exp=time.time() + 9
    )
    assert claims == episode_tokens.read(episode_tokens.mint(claims, KEYS), KEYS)


def test_keys_can_be_rotated():
    """A token of the old key is accepted while the old key is still listed behind the new one."""
    old = episode_tokens.mint(episode_tokens.Claims(sub="e"), KEYS)
    assert "e" == episode_tokens.read(old, [episode_tokens.new_key(), *KEYS]).sub
    with pytest.raises(TokenError, match="forged"):
        episode_tokens.read(old, [episode_tokens.new_key()])


def test_an_expired_token_is_refused():
    """After its end a token opens nothing."""
    with pytest.raises(TokenError, match="expired"):
        episode_tokens.read(
            episode_tokens.mint(episode_tokens.Claims(sub="e"), KEYS, lifetime_s=-1), KEYS
        )


@pytest.mark.parametrize("bad", ["", "x", "a.b.c", "é" * 10, "a" * 9000, "\x00", "' OR 1=1 --"])
def test_what_is_no_token_is_malformed(bad):
    """Garbage gets a typed error, whatever it looks like."""
    with pytest.raises(TokenError, match="malformed"):
        episode_tokens.read(bad, KEYS)


def test_a_prefix_of_a_valid_token_is_refused():
    """No part of a token stands for the whole (the case of CVE-2026-35030)."""
    token = episode_tokens.mint(episode_tokens.Claims(sub="e"), KEYS)
    for end in (10, len(token) // 2, len(token) - 1):
        with pytest.raises(TokenError):
            episode_tokens.read(token[:end], KEYS)


def test_an_unsigned_token_is_refused():
    """`alg: none` is no signature."""
    unsigned = jwt.encode(
        {"sub": "e", "aud": episode_tokens.AUDIENCE, "exp": 9e9}, None, algorithm="none"
    )
    with pytest.raises(TokenError):
        episode_tokens.read(unsigned, KEYS)


@pytest.mark.parametrize(
    ("reason", "claims", "episode", "scope"),
    [
        ("other_episode", episode_tokens.Claims(sub="e"), "f", "call"),
        ("wrong_scope", episode_tokens.Claims(sub="e"), "e", "host"),
        ("wrong_scope", episode_tokens.Claims(sub="*", scope="host"), "e", "call"),
        ("other_episode", episode_tokens.Claims(sub="*"), "e", "call"),
        ("expired", episode_tokens.Claims(sub="e", exp=1.0), "e", "call"),
    ],
)
def test_a_token_for_something_else_is_refused(reason, claims, episode, scope):
    """Episode, scope and time are all bound."""
    with pytest.raises(TokenError) as caught:
        episode_tokens.check(claims, episode_id=episode, scope=scope, now=2.0)
    assert reason == caught.value.reason


def test_a_hosts_token_may_seal_any_episode():
    """Hosts are trusted with all episodes, agents with their own."""
    episode_tokens.check(
        episode_tokens.Claims(sub="*", scope="host"), episode_id="e", scope="host", now=2.0
    )
    episode_tokens.check(episode_tokens.Claims(sub="e"), episode_id="e", scope="call", now=2.0)


@pytest.mark.parametrize("keys", ["", "short", f"{'k' * 32},short"])
def test_missing_or_short_keys_are_refused(keys):
    """The error says how to make a key."""
    with pytest.raises(ProjectError, match="ODRADEK_TOKEN_KEYS"):
        episode_tokens.TokenSettings(keys=keys).secrets()


def test_keys_are_masked_when_printed():
    """Settings can be logged."""
    assert KEYS[0] not in repr(episode_tokens.TokenSettings(keys=KEYS[0]))
