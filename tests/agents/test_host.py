"""The agent host over the real broker, with a stub of the proxy."""

import asyncio
import time

import msgspec
import pytest

pytestmark = pytest.mark.broker


def headers(record):
    return {name: value.decode() for name, value in record.headers}


async def test_a_request_is_played_and_told_in_order(stage):
    """Opened stands before the agent starts; rewards before the seal; the seal before the end."""
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
    assert order == [("agent", ["Opened"]), ("seal", [0.5], 0)]
    assert stage.proxy.seals == [(stage.episode("m1"), "completed", "")]
    (opened,) = await stage.story()
    assert (opened.sample, opened.attempt, opened.final) == (3, 1, False)
    events = await stage.read("a2a.events.player")
    assert [headers(r)["a2a-event"] for r in events] == ["task", "status_update"]
    assert [headers(r)["a2a-generation"] for r in events] == ["1", "2"]
    assert headers(events[-1])["a2a-state"] == "TASK_STATE_COMPLETED"


async def test_hosts_and_agents_get_tokens_of_their_own_kind(stage):
    """The agent's token is for its calls, with the task's sampling; the host's is for seals."""
    from odradek.infra.tokens import read

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
        await stage.send(kind, given=kind, timeouts={"run_s": 0.3})
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
    """upstream_failed: two attempts under two ids, each Aborted, only the first with a retry."""
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
        ("Opened", first),
        ("Aborted", first),
        ("Opened", second),
        ("Aborted", second),
    ]
    assert [(e.reason, e.retry) for e in story[1::2]] == [
        ("upstream_failed", True),
        ("upstream_failed", False),
    ]
    assert (story[0].final, story[2].final) == (False, True)
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
    assert [type(e).__name__ for e in story] == ["Opened", "Aborted", "Opened"]
    assert (story[1].reason, story[1].retry) == ("incomplete", True)
    assert [outcome for _, outcome, _ in stage.proxy.seals] == ["completed"]


async def test_runs_of_a_killed_host_are_begun_again_elsewhere(stage):
    """The next owner aborts what it finds unfinished, and plays attempt 2."""
    started = []

    async def hang(rollout):
        started.append(rollout.episode_id)
        await asyncio.Event().wait()

    async def play(rollout):
        started.append(rollout.episode_id)

    dead = await stage.host(hang, instance="a")
    for message in ("m1", "m2", "m3"):
        await stage.send(message)
    await stage.until(lambda: len(started) == 3)
    # As after kill -9: its tasks stop where they are, and its name is taken by its successor.
    for owned in dead._owned.values():
        for task in owned.tasks:
            task.cancel()
        for run in owned.runs.values():
            run.lose()
    stage.crash(dead)
    began = time.monotonic()
    await stage.host(play, instance="a")
    await stage.ended("m1", "m2", "m3", attempt=2)
    assert time.monotonic() - began < 30
    story = await stage.story()
    aborted = [e for e in story if type(e).__name__ == "Aborted"]
    assert {e.episode_id for e in aborted} == {stage.episode(m) for m in ("m1", "m2", "m3")}
    assert {(e.reason, e.retry) for e in aborted} == {("host_lost", True)}
    assert {(e.attempt, e.final) for e in story if type(e).__name__ == "Opened"} == {
        (1, False),
        (2, True),
    }
    assert sorted(outcome for _, outcome, _ in stage.proxy.seals) == ["completed"] * 3


async def test_a_host_that_died_while_sealing_is_completed_by_its_successor(stage):
    """With its ending written down, an episode is sealed again, not played again."""
    sealing, release = asyncio.Event(), asyncio.Event()

    async def never(episode):
        sealing.set()
        await release.wait()
        stage.proxy.seals.clear()

    plays = []

    async def play(rollout):
        plays.append(rollout.attempt)
        rollout.reward("game", 1.0)

    stage.proxy.on_seal = never
    dead = await stage.host(play, instance="a")
    await stage.send("m1")
    await asyncio.wait_for(sealing.wait(), 60)
    for owned in dead._owned.values():
        for run in owned.runs.values():
            run.lose()
    stage.crash(dead)
    stage.proxy.on_seal = lambda episode: None
    await stage.host(play, instance="a")
    await stage.ended("m1")
    assert plays == [1]
    assert stage.proxy.seals == [(stage.episode("m1"), "completed", "")]
    release.set()
    assert ["Opened"] == [type(e).__name__ for e in await stage.story()]


async def test_sigterm_gives_runs_up_for_another_attempt(stage):
    """A host that is told to end aborts what goes on, and leaves what waits untouched."""
    started = []

    async def hang(rollout):
        started.append(rollout.episode_id)
        await asyncio.Event().wait()

    async def play(rollout):
        started.append(rollout.episode_id)

    host = await stage.host(hang, concurrency=1, instance="a")
    first, second = stage.named(0, 2)
    await stage.send(first)
    await stage.until(lambda: started)
    await stage.send(second)
    await stage.until(lambda: sum(o.backlog.unfinished for o in host._owned.values()) == 2)
    await stage.stop(host)
    story = await stage.story()
    assert [type(e).__name__ for e in story] == ["Opened", "Aborted"]
    assert (story[1].reason, story[1].retry) == ("host_lost", True)
    await stage.host(play, instance="a")
    await stage.until(lambda: len(stage.proxy.seals) == 2)
    assert 3 == len(started)


async def test_unreadable_requests_are_put_aside_and_harm_nothing(stage):
    """Each bad request is one dead letter with its reason, and the next one is served."""
    from odradek.agents.binding.requests import Sample, send_headers, send_value
    from odradek.schemas.events import raw

    async def play(rollout):
        pass

    await stage.host(play)
    good = send_headers(deadline=None, traceparent=None)
    value = send_value("x", raw(None), Sample(task_id="t"))
    bad = {
        "not_json": (b"{", good),
        "bad_schema": (b'{"message": {"messageId": 7}}', good),
        "bad_schema 2": (value.replace(b"null", b"1e999"), good),
        "bad_schema 3": (
            value.replace(b'"task_id":"t"', b'"task_id":"t","timeouts":{"run_s":1e300}'),
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


async def test_offsets_are_committed_up_to_the_oldest_unfinished_request(stage):
    """A long run holds the mark; when it ends, the mark passes all that ended before."""
    from aiokafka import TopicPartition

    from odradek.infra.bus import consumer, running

    release = asyncio.Event()

    async def play(rollout):
        if rollout.task.input == "long":
            await release.wait()

    async def committed():
        reader = consumer(stage.bus, group="agent.player")
        async with running(reader, stage.bus):
            return await reader.committed(TopicPartition(stage.bus.topic("a2a.requests.player"), 1))

    await stage.host(play)
    first, second, third = stage.named(1, 3)
    await stage.send(first)
    await stage.until(lambda: len(stage.proxy.seals) == 1)
    await stage.send(second, given="long")
    await stage.send(third)
    await stage.until(lambda: len(stage.proxy.seals) == 2)

    async def at(offset):
        return await committed() == offset

    await stage.until(lambda: at(1))
    release.set()
    await stage.until(lambda: at(3))


async def test_two_hosts_share_the_work_and_a_lost_partition_kills_its_runs(stage):
    """When a second host joins, moved runs are played again there; none ends twice."""
    bus = stage.bus
    where = {"a": [], "b": []}

    def player(name, gate):
        async def play(rollout):
            where[name].append(rollout.episode_id)
            await gate.wait()

        return play

    gate = asyncio.Event()
    await stage.host(player("a", gate), concurrency=20)
    for partition in range(3):
        for name in stage.named(partition, 3):
            await stage.send(name)
    await stage.until(lambda: len(where["a"]) == 9)
    await stage.host(player("b", gate), concurrency=20)
    await stage.until(lambda: len(where["b"]) in {3, 6})
    gate.set()
    await stage.until(lambda: len(stage.proxy.seals) == 9)
    assert 9 == len({episode for episode, _, _ in stage.proxy.seals})
    story = await stage.story()
    moved = len(where["b"])
    assert moved == sum(type(e).__name__ == "Aborted" for e in story)
    assert bus is stage.bus
