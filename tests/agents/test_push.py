"""The push dispatcher on a real broker: at least once, in order, and no event lost by its death."""

import asyncio
import contextlib
import time

import pytest
from a2a.types import AuthenticationInfo, TaskPushNotificationConfig
from aiohttp import web

from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.push.process import PushDispatcher, WebhookSubscription
from odradek.agents.push.sender import PostTarget
from odradek.agents.push.settings import PushSettings
from odradek.agents.push.signatures import is_signed, secret_of
from odradek.infra.bus import at_end
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.webhook_receiver import WebhookReceiver

from .conftest import told
from .test_push_configs import message

pytestmark = pytest.mark.broker

KEY = "p" * 40
GIVEN = {"keys": KEY, "webhook_hosts": "127.0.0.1", "retry_s": 0.01}


@contextlib.asynccontextmanager
async def serving(service):
    """A service, once it is ready; its end is awaited."""
    running = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    ready.cancel()
    try:
        yield running
    finally:
        service.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def hook():
    async with WebhookReceiver().running() as receiver:
        yield receiver


@pytest.fixture
async def agent(stage):
    await stage.host(ConformanceAgent(), training=False, push=True, webhook_hosts="127.0.0.1")
    async with KafkaConnection(stage.bus) as connection:
        yield KafkaTransport(connection, "player", timeout_s=20.0)


def push(hook, path, **given):
    return TaskPushNotificationConfig(url=f"{hook.url}/{path}", id=path, **given)


async def test_a_tasks_events_are_posted_in_order_until_they_are_taken(stage, agent, hook):
    """From the first on, with the client's credentials and our signature; a restart repeats none.

    Those that came while no dispatcher ran are posted by the next one.
    """
    refusals = [503, 500, 302]

    def answer(post):
        status = refusals.pop() if refusals else 200
        return web.Response(status=status, headers={"Location": f"{hook.url}/elsewhere"})

    hook.answer = answer
    config = push(
        hook, "a", token="mine", authentication=AuthenticationInfo(scheme="Bearer", credentials="c")
    )
    async with serving(PushDispatcher(PushSettings(**GIVEN), stage.bus)):
        first = (await agent.send_message(message("tck-stream-artifact-chunked", push=config))).task
        posts = await hook.until(lambda posts: len(posts) == 8)
    assert [1, 1, 1, 1, 2, 3, 4, 5] == [post.generation for post in posts]
    assert {"/a"} == {post.path for post in posts}
    kinds = [next(iter(post.event)) for post in posts[3:]]
    assert ["task", "statusUpdate", "artifactUpdate", "artifactUpdate", "statusUpdate"] == kinds
    assert first.id == posts[0].event["task"]["id"]
    headers = posts[0].headers
    assert ("application/a2a+json", "mine", "Bearer c") == (
        headers["content-type"],
        headers["x-a2a-notification-token"],
        headers["authorization"],
    )
    secret = secret_of(KEY, config.url)
    assert is_signed(posts[0].body, headers, secret, now=time.time())
    second = (await agent.send_message(message("tck-complete-task", push=push(hook, "b")))).task
    async with serving(PushDispatcher(PushSettings(**GIVEN), stage.bus, ["player"])):
        posts = await hook.until(lambda posts: len(posts) == 10)
    assert [(second.id, 1), (second.id, 2)] == [
        (post.headers["webhook-id"].split(".")[0], post.generation) for post in posts[8:]
    ]


async def test_what_no_webhook_takes_is_a_dead_letter_that_can_be_sent_again(stage, agent, hook):
    """With its reason; the webhooks of others get nothing twice. A deleted config gets nothing."""
    hook.answer = lambda post: web.Response(status={"/gone": 410, "/down": 503}.get(post.path, 200))
    task = (await agent.send_message(message("tck-input-required"))).task.id
    for path in ("gone", "down", "good"):
        config = push(hook, path)
        config.task_id = task
        await agent.create_task_push_notification_config(config)
    dispatcher = PushDispatcher(PushSettings(**GIVEN, tries=3), stage.bus)
    async with serving(dispatcher):
        await agent.send_message(message("tck-complete-task", task=task))

        async def letters():
            found = [told(record) for record in await stage.read("a2a.dlq.player")]
            return found if len(found) == 4 else None

        found = await stage.until(letters)
        reasons = sorted((each["a2a-webhook"], each["dlq-reason"]) for each in found)
        assert [f"{hook.url} (down): HTTP 503"] * 2 == [
            each["dlq-detail"] for each in found if each["a2a-webhook"] == "down"
        ]
        assert [("down", "webhook_gave_up")] * 2 + [("gone", "webhook_gone")] * 2 == reasons
        counts = [
            [post.path for post in hook.posts].count(f"/{p}") for p in ("gone", "down", "good")
        ]
        assert [2, 6, 2] == counts  # it works, and it is over
        hook.answer = lambda post: web.Response()
        (letter, _) = [
            r for r in await stage.read("a2a.dlq.player") if told(r)["a2a-webhook"] == "down"
        ]
        kept = [pair for pair in letter.headers if not pair[0].startswith("dlq-")]
        await stage.appender.append(
            "a2a.events.player", key=letter.key, value=letter.value, headers=kept
        )
        await hook.until(lambda posts: len(posts) == 11)
    assert "/down" == hook.posts[-1].path


async def test_a_dispatcher_that_is_killed_loses_nothing(stage, agent, hook):
    """What was under way is posted again by its successor."""
    dispatcher = PushDispatcher(PushSettings(**GIVEN), stage.bus)
    hook.answer = lambda post: web.Response(status=503)
    async with serving(dispatcher) as running:
        await agent.send_message(message("tck-stream-001", push=push(hook, "a")))
        await hook.until(lambda posts: len(posts) >= 2)
        running.cancel()
    hook.answer = lambda post: web.Response()
    before = len(hook.posts)
    async with serving(PushDispatcher(PushSettings(**GIVEN), stage.bus)):
        await hook.until(lambda posts: len(posts) >= before + 4)
    assert [1, 2, 3, 4] == [post.generation for post in hook.posts[before:]]


async def test_a_subscription_posts_the_states_that_it_wants_from_where_it_began(
    stage, agent, hook
):
    """Its progress is kept by its name: what came meanwhile is posted when it runs again."""
    await agent.send_message(message("tck-complete-task-0"))

    def subscription():
        return WebhookSubscription(
            PushSettings(**GIVEN),
            stage.bus,
            "player",
            group="billing",
            target=PostTarget(id="billing", url=f"{hook.url}/done"),
            states=["TASK_STATE_COMPLETED"],
            begin=at_end,
        )

    async with serving(subscription()):
        await agent.send_message(message("tck-complete-task-1"))
        await hook.until(lambda posts: len(posts) == 1)
    await agent.send_message(message("tck-complete-task-2"))
    async with serving(subscription()):
        await hook.until(lambda posts: len(posts) == 2)
    states = [post.event["statusUpdate"]["status"]["state"] for post in hook.posts]
    assert ["TASK_STATE_COMPLETED"] * 2 == states
    assert 2 == len({post.headers["webhook-id"] for post in hook.posts})
