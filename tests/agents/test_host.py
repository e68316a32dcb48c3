"""The agent host over the real broker, with a stub of the proxy."""

import asyncio
import time

import msgspec
import numpy as np
import pytest

pytestmark = pytest.mark.broker


def headers(record):
    return {name: value.decode() for name, value in record.headers}


async def test_a_request_is_played_and_told_in_order(stage):
    """EpisodeOpened stands before the agent starts; rewards before the seal; the seal before the end."""
    order = []

    async def play(rollout):
        opened = await stage.until(stage.story, 5)  # acked; its marker follows at once
        order.append(("agent", [type(event).__name__ for event in opened]))
        assert rollout.task.input == {"secret": 2**60 + 1}
        assert rollout.base_url == f"{stage.proxy.url}/e/{rollout.episode_id}/v1"
        rollout.reward("game", 0.5, "warm")

    async def at_seal(episode):
        rewards = [msgspec.json.decode(r.value) for r in await stage.read("rl.rewards.v1")]
        ends = [r for r in await stage.read("a2a.events.player") if "a2a-end" in headers(r)]
        order.append(("seal", [r["value"] for r in rewards], len(ends)))

    stage.proxy.on_seal = at_seal
    await stage.host(play)
    await stage.send("m1", given={"secret": 2**60 + 1}, rewards={"game": 1.0}, sample=3)
    await stage.ended("m1")

    assert stage.proxy.seals == [(stage.episode("m1"), "completed", "")]
    assert order == [("agent", ["EpisodeOpened"]), ("seal", [0.5], 0)]
    assert stage.proxy.seals == [(stage.episode("m1"), "completed", "")]
    (opened,) = await stage.story()
    assert (opened.sample, opened.attempt, opened.last_attempt) == (3, 1, False)
    events = await stage.read("a2a.events.player")
    assert [headers(r)["a2a-event"] for r in events] == ["task", "status_update"]
    assert [headers(r)["a2a-generation"] for r in events] == ["1", "2"]
    assert headers(events[-1])["a2a-state"] == "TASK_STATE_COMPLETED"


async def test_a_game_that_is_solved_with_another_librarys_number_is_solved(stage):
    """A comparison of numpy's is a reward, and the episode completed."""

    async def play(rollout):
        rollout.reward("solved", np.float32(0.5) == np.float32(0.5))
        rollout.reward("score", lambda: np.float32(0.5))

    await stage.host(play)
    await stage.send("m1", rewards={"solved": 1.0, "score": 1.0})
    await stage.ended("m1")
    assert [(stage.episode("m1"), "completed", "")] == stage.proxy.seals
    rewards = [msgspec.json.decode(record.value) for record in await stage.read("rl.rewards.v1")]
    assert {"solved": 1.0, "score": 0.5} == {one["component"]: one["value"] for one in rewards}


async def test_hosts_and_agents_get_tokens_of_their_own_kind(stage):
    """The agent's token is for its calls, with the task's sampling; the host's is for seals."""
    from odradek.infra.runtime.episode_tokens import read

    seen = []

    async def play(rollout):
        seen.append(read(rollout.api_key, ["k" * 40]))

    await stage.host(play)
    await stage.send("m1", sampling={"temperature": 0}, model="small")
    await stage.ended("m1")
    (claims,) = seen
    assert (claims.scope, claims.sub) == ("call", stage.episode("m1"))
    assert (claims.sampling, claims.model, claims.task_id) == ({"temperature": 0}, "small", "t")
    assert read(stage.proxy.tokens[0], ["k" * 40]).scope == "host"


async def test_repeating_a_request_changes_nothing(stage):
    """A message that comes again, here or after a restart, is not played again."""
    plays = []

    async def play(rollout):
        plays.append(rollout.episode_id)

    host = await stage.host(play)
    await stage.send("m1")
    await stage.ended("m1")
    await stage.send("m1")
    await stage.send("m2")
    await stage.ended("m2")
    await stage.stop(host)
    await stage.host(play)
    await stage.send("m1")
    await stage.send("m3")
    await stage.ended("m3")
    assert plays == [stage.episode(m) for m in ("m1", "m2", "m3")]
    assert 3 == len(await stage.story())


async def test_a_cancel_runs_at_once_although_the_host_is_full(stage):
    """CancelTask ends a running task, and a waiting one, while every place is taken."""
    started = []

    async def play(rollout):
        started.append(rollout.episode_id)
        await asyncio.Event().wait()

    await stage.host(play, concurrency=1)
    await stage.send("m1")
    await stage.until(lambda: started)
    await stage.send("m2")
    await stage.cancel(
        stage.episode("m2"),
        **{
            "a2a-reply-topic": stage.bus.topic("a2a.replies.tests"),
            "a2a-reply-partition": "1",
            "a2a-correlation-id": "c1",
        },
    )
    await stage.ended("m2")
    assert started == [stage.episode("m1")]
    await stage.cancel(stage.episode("m1"))
    await stage.ended("m1")
    assert {outcome for _, outcome, _ in stage.proxy.seals} == {"cancelled"}
    assert len(stage.proxy.seals) == 2
    (reply,) = await stage.until(lambda: stage.read("a2a.replies.tests"))
    assert (reply.partition, headers(reply)["a2a-correlation-id"]) == (1, "c1")
    assert msgspec.json.decode(reply.value)["status"]["state"] == "TASK_STATE_CANCELED"


async def test_the_outcome_says_whose_doing_the_end_was(stage):
    """Raising is failed, lateness is timed_out; a reward that cannot be worked out is told."""

    class InternalServerError(Exception):
        pass

    InternalServerError.__module__ = "openai._exceptions"

    async def play(rollout):
        kind = rollout.task.input
        if kind == "raise":
            raise ValueError("lost the ball")
        if kind == "late":
            await asyncio.Event().wait()
        if kind == "unrewarded":
            rollout.reward("game", lambda: 1 / 0)
        if kind == "upstream":
            raise InternalServerError

    await stage.host(play)
    for kind in ("raise", "late", "unrewarded"):
        await stage.send(kind, given=kind, timeouts={"attempt_s": 0.3})
    await stage.ended("raise", "late", "unrewarded")
    outcomes = {episode: (outcome, error) for episode, outcome, error in stage.proxy.seals}
    assert outcomes[stage.episode("raise")] == ("failed", "ValueError: lost the ball")
    assert outcomes[stage.episode("late")][0] == "timed_out"
    assert outcomes[stage.episode("unrewarded")] == (
        "completed",
        "reward game: ZeroDivisionError: division by zero",
    )
    assert [] == await stage.read("rl.rewards.v1")


async def test_an_unreachable_model_is_tried_again_and_then_given_up(stage):
    """upstream_failed: two attempts under two ids, each EpisodeAborted, only the first with a retry."""
    from odradek.agents import UpstreamUnavailable

    attempts = []

    async def play(rollout):
        attempts.append(rollout.attempt)
        raise UpstreamUnavailable

    await stage.host(play)
    await stage.send("m1")
    await stage.ended("m1", attempt=2)
    assert attempts == [1, 2]
    story = await stage.story()
    first, second = stage.episode("m1", 1), stage.episode("m1", 2)
    assert [(type(e).__name__, e.episode_id) for e in story] == [
        ("EpisodeOpened", first),
        ("EpisodeAborted", first),
        ("EpisodeOpened", second),
        ("EpisodeAborted", second),
    ]
    assert [(e.reason, e.retry) for e in story[1::2]] == [
        ("upstream_failed", True),
        ("upstream_failed", False),
    ]
    assert (story[0].last_attempt, story[2].last_attempt) == (False, True)
    assert stage.proxy.seals == []


async def test_an_episode_that_cannot_be_sealed_is_incomplete(stage):
    """A proxy that does not seal within the wait costs the attempt, not the host."""
    stage.proxy.status = 503

    async def play(rollout):
        if rollout.attempt == 2:
            stage.proxy.status = 200

    await stage.host(play)
    await stage.send("m1", timeouts={"seal_s": 0.3})
    await stage.ended("m1", attempt=2)
    story = await stage.story()
    assert [type(e).__name__ for e in story] == ["EpisodeOpened", "EpisodeAborted", "EpisodeOpened"]
    assert (story[1].reason, story[1].retry) == ("incomplete", True)
    assert [outcome for _, outcome, _ in stage.proxy.seals] == ["completed"]


async def test_unreadable_requests_are_put_aside_and_harm_nothing(stage):
    """Each bad request is one dead letter with its reason, and the next one is served."""
    from odradek.agents.binding.requests import SampleAddress, send_headers, send_value
    from odradek.schemas.events import raw

    async def play(rollout):
        pass

    await stage.host(play)
    good = send_headers(deadline=None, traceparent=None)
    value = send_value("x", raw(None), SampleAddress(task_id="t"))
    bad = {
        "not_json": (b"{", good),
        "bad_schema": (b'{"message": {"messageId": 7}}', good),
        "bad_schema 2": (value.replace(b"null", b"1e999"), good),
        "bad_schema 3": (
            value.replace(b'"task_id":"t"', b'"task_id":"t","timeouts":{"attempt_s":1e300}'),
            good,
        ),
        "not_json 2": (value.replace(b"null", b'"\xff"'), good),
        "invalid_params": (value.replace(b'"ROLE_USER"', b'"ROLE_UNSPECIFIED"'), good),
        "tombstone": (None, good),
        "too_deep": (b'{"message":' + b"[" * 200_000, good),
        "duplicate_header": (value, (*good, ("a2a-operation", b"CancelTask"))),
        "no_operation": (value, ()),
        "bad_version": (value, (("a2a-operation", b"SendMessage"),)),
        "method_not_found": (
            value,
            (("a2a-operation", b"Dance"), ("a2a-version", b"1.0")),
        ),
        "expired": (value, send_headers(deadline=time.time() - 1, traceparent=None)),
        "bad_reply_address": (value, (*good, ("a2a-reply-topic", b"rl.turns.v1"))),
    }
    for body, given in bad.values():
        await stage.request(body, given, key="k")
    await stage.send("m1")
    await stage.ended("m1")
    letters = await stage.until(lambda: _all(stage, len(bad)))
    reasons = sorted(headers(letter)["dlq-reason"] for letter in letters)
    assert sorted(name.split()[0] for name in bad) == reasons
    assert {stage.episode("m1")} == {event.episode_id for event in await stage.story()}


async def _all(stage, count):
    letters = await stage.read("a2a.dlq.player")
    return letters if len(letters) >= count else None
