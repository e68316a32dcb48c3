"""Push notification configs: the four operations, and the config that comes with a message."""

import pytest
from a2a.types import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotFoundError,
)
from hypothesis import given
from hypothesis import strategies as st

from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.push.configs import MOST, TaskConfigs, configs_value, read_configs
from odradek.schemas.errors import InvalidRecord
from tests.support.agents.conformance_agent import ConformanceAgent

HOOK = "http://127.0.0.1:8080/hook"


def config(task="", name="", url=HOOK, **given):
    return TaskPushNotificationConfig(task_id=task, id=name, url=url, **given)


def message(name, *, task="", push=None):
    return SendMessageRequest(
        message=Message(message_id=name, role=Role.ROLE_USER, parts=[Part(text="x")], task_id=task),
        configuration=SendMessageConfiguration(task_push_notification_config=push),
    )


async def listed(transport, task):
    request = ListTaskPushNotificationConfigsRequest(task_id=task)
    found = await transport.list_task_push_notification_configs(request)
    return {each.id: each.url for each in found.configs}


@pytest.mark.broker
async def test_configs_are_kept_with_their_task_and_outlive_its_host(stage):
    """Create, get, list and delete; with a message, and with one that goes on with a task."""
    given = {"push": True, "webhook_hosts": "127.0.0.1", "training": False}
    host = await stage.host(ConformanceAgent(), **given)
    async with KafkaConnection(stage.bus) as connection:
        agent = KafkaTransport(connection, "player", timeout_s=20.0)
        push = config(name="first", token="t", authentication=AuthenticationInfo(scheme="Bearer"))
        task = (await agent.send_message(message("tck-input-required", push=push))).task.id
        await agent.create_task_push_notification_config(config(task, "second"))
        made = await agent.create_task_push_notification_config(config(task, url=HOOK + "/2"))
        again = await agent.create_task_push_notification_config(config(task, url=HOOK + "/2"))
        assert made == again
        third = config(name="third")
        await agent.send_message(message("tck-input-required-2", task=task, push=third))
        await stage.stop(host)
        await stage.host(ConformanceAgent(), **given)
        kept = {"first": HOOK, "second": HOOK, made.id: HOOK + "/2", "third": HOOK}
        assert kept == await listed(agent, task)
        ask = GetTaskPushNotificationConfigRequest(task_id=task, id="first")
        first = await agent.get_task_push_notification_config(ask)
        assert ("t", "Bearer", task) == (first.token, first.authentication.scheme, first.task_id)
        drop = DeleteTaskPushNotificationConfigRequest(task_id=task, id="first")
        for _ in range(2):
            await agent.delete_task_push_notification_config(drop)
        with pytest.raises(TaskNotFoundError):
            await agent.get_task_push_notification_config(ask)
        with pytest.raises(TaskNotFoundError):
            await agent.create_task_push_notification_config(config("nobody's"))
        for bad in ("http://10.0.0.1/", "file:///etc/passwd"):
            with pytest.raises(InvalidParamsError, match="webhook is refused"):
                await agent.create_task_push_notification_config(config(task, url=bad))
            with pytest.raises(InvalidParamsError, match="webhook is refused"):
                await agent.send_message(message("m", push=config(url=bad)))
        for wrong in ({"token": "a\r\nb"}, {"authentication": AuthenticationInfo(scheme="a b")}):
            with pytest.raises(InvalidParamsError):
                await agent.create_task_push_notification_config(config(task, "x", **wrong))
        for number in range(MOST - 3):
            await agent.create_task_push_notification_config(config(task, f"n{number}"))
        with pytest.raises(InvalidParamsError, match="at most"):
            await agent.create_task_push_notification_config(config(task, "onemore"))
        assert MOST == len(await listed(agent, task))
    assert {task} == {record.key for record in await stage.read("a2a.push.player")}
    (card, *_) = [record.value for record in await stage.read("a2a.cards")]
    assert b'"pushNotifications": true' in card


@pytest.mark.broker
async def test_who_asks_an_agent_that_pushes_nothing_hears_so(stage):
    """Also where the config comes with a message: its client would wait for nothing."""
    await stage.host(ConformanceAgent(), training=False)
    async with KafkaConnection(stage.bus) as connection:
        agent = KafkaTransport(connection, "player", timeout_s=20.0)
        with pytest.raises(PushNotificationNotSupportedError):
            await agent.send_message(message("m1", push=config()))
        with pytest.raises(PushNotificationNotSupportedError):
            await listed(agent, "t")


def test_a_record_of_configs_has_these_bytes():
    """Golden: A2A's list response, and since which generation each config has been there."""
    configs = TaskConfigs().put(config("t", "a"), 0).put(config("t", "b", token="x"), 3)
    golden = (
        b'{"configs":[{"id": "a", "taskId": "t", "url": "http://127.0.0.1:8080/hook"},'
        b'{"id": "b", "taskId": "t", "url": "http://127.0.0.1:8080/hook", "token": "x"}],'
        b'"since":{"a":0,"b":3}}'
    )
    assert golden == configs_value(configs)
    assert configs == read_configs(golden)
    assert None is configs_value(configs.without("a").without("b"))
    for bad in (b"", b"[]", b'{"configs": 1}', b'{"since": {"a": "b"}}', b"[" * 100_000):
        with pytest.raises(InvalidRecord):
            read_configs(bad)


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.tuples(st.sampled_from(["put", "drop"]), NAMES, st.sampled_from("xy")))


@given(STEPS)
def test_configs_are_a_dictionary_that_remembers_since_when(steps):
    """A repetition changes nothing; an event is for those that came before it."""
    configs, model = TaskConfigs(), {}
    for generation, (step, name, url) in enumerate(steps):
        if step == "drop":
            configs = configs.without(name)
            model.pop(name, None)
        else:
            configs = configs.put(config("t", name, url), generation)
            if model.get(name, ("", 0))[0] != url:
                model[name] = (url, generation)
    assert {name: url for name, (url, _) in model.items()} == {c.id: c.url for c in configs.configs}
    for generation in range(len(steps) + 1):
        wanted = {name for name, (_, since) in model.items() if generation > since}
        assert wanted == {each.id for each in configs.wanting(generation)}
