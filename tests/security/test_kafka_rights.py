"""Under the docs' access lists only judges reward, on a real broker that enforces them (S4)."""

import re
import shlex
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreateAclsRequest

from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.app.local_kafka.server import free_ports
from odradek.infra.bus import BusSettings, KafkaAppender, admin, ensure_topics, rows, running
from odradek.infra.client import subscribe
from odradek.infra.errors import InfraError
from odradek.schemas.events import EpisodeOpened, Reward, Task
from odradek.schemas.topics import CONVERSATIONS, EPISODES, REWARDS, TASKS, TURNS

pytestmark = [pytest.mark.broker, pytest.mark.slow]
PAGE = Path(__file__).parents[2] / "docs" / "bring-your-own-kafka.md"
USERS = ("pipeline", "host", "judge", "publisher", "agent")
PASSWORD = "not-a-real-password"
PREFIX = "acl."
RESOURCES = {"--topic": 2, "--group": 3, "--transactional-id": 5}
OPERATIONS = {"All": 2, "Read": 3, "Write": 4}
"""Numbers of Kafka's protocol (AclOperation, ResourceType)."""


def recipe() -> list[CreateAclsRequest]:
    """What the page's `kafka-acls` commands ask the broker for."""
    found = []
    for line in re.findall(r"^kafka-acls --add (.*)$", PAGE.read_text(), flags=re.MULTILINE):
        words = shlex.split(line.replace("${P}", PREFIX))
        told = dict(zip(words[::2], words[1::2], strict=True))
        (resource,) = told.keys() & RESOURCES.keys()
        prefixed = told.get("--resource-pattern-type") == "prefixed"
        allowed = "--allow-principal" in told
        principal = told["--allow-principal" if allowed else "--deny-principal"]
        found.append(
            CreateAclsRequest(
                RESOURCES[resource],
                told[resource],
                4 if prefixed else 3,
                principal,
                "*",
                OPERATIONS[told["--operation"]],
                3 if allowed else 2,
            )
        )
    return found


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """(where its owner connects, where everybody logs in) of a broker with an authorizer."""
    plain, controller, login = free_ports(3)
    at = "127.0.0.1:"
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in USERS)
    overrides = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listeners": f"PLAINTEXT://{at}{plain},CONTROLLER://{at}{controller},LOGIN://{at}{login}",
        "advertised.listeners": f"PLAINTEXT://{at}{plain},LOGIN://{at}{login}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        "LOGIN:SASL_PLAINTEXT",
        "controller.quorum.voters": f"1@{at}{controller}",
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
        f"PlainLoginModule required {users};",
    }
    folder = tmp_path_factory.mktemp("kafka")
    with LocalBroker(folder, port=plain, overrides=overrides):
        yield f"{at}{plain}", f"{at}{login}"


@pytest.fixture
async def bus(addresses):
    """The owner's bus, with topics and the recipe's access lists."""
    owner = BusSettings(bootstrap_servers=addresses[0], topic_prefix=PREFIX, topic_partitions=1)
    await ensure_topics(owner, rows(agents=["hilo"]))
    async with running(admin(owner), owner) as client:
        for request in recipe():
            answer = await client._send_request(request)
            assert 0 == answer.creation_responses[0][0], answer
    return owner


def of(addresses, name):
    """The bus as one of the logins sees it."""
    return BusSettings(
        bootstrap_servers=addresses[1],
        security_protocol="SASL_PLAINTEXT",
        sasl_username=name,
        sasl_password=PASSWORD,
        topic_prefix=PREFIX,
        topic_partitions=1,
    )


async def may_write(bus, topic) -> bool:
    """Whether this login can append to a topic."""
    try:
        appender = await KafkaAppender.connect(bus, timeout_s=3)
    except InfraError:
        return False  # it may write nowhere
    try:
        await appender.append(topic, key="k", value=b"{}")
    except InfraError:
        return False
    else:
        return True
    finally:
        await appender.aclose()


WRITERS = {
    REWARDS.name: {"host", "judge"},
    TURNS.name: {"pipeline", "host"},
    EPISODES.name: {"pipeline"},
    "rl.batches.v1": {"pipeline"},
    "rl.policies.v1": {"pipeline"},
    TASKS.name: {"pipeline", "publisher"},
    "a2a.requests.hilo": {"pipeline", "host"},
}


async def test_each_topic_takes_records_of_its_writers_only(bus, addresses):
    """Above all rewards: neither the agent's login nor the pipeline's can pay."""
    assert {"host", "judge"} == WRITERS[REWARDS.name]
    for topic, writers in WRITERS.items():
        allowed = {name for name in USERS if await may_write(of(addresses, name), topic)}
        assert writers == allowed, topic


async def test_an_agent_reads_what_the_recipe_lets_it(bus, addresses):
    """Conversations, but neither tasks nor episodes."""
    mine = of(addresses, "agent")
    words = {"since": "beginning", "follow": False, "bus": mine}
    assert [] == [one async for one in subscribe(CONVERSATIONS.name, **words)]
    for topic in (TASKS.name, EPISODES.name):
        with pytest.raises((InfraError, KafkaError)):
            [one async for one in subscribe(topic, **words)]


async def test_the_pipeline_works_under_the_recipe(bus, addresses):
    """The intake, in transactions, forwards a judge's reward to the story of its episode."""
    import asyncio

    from odradek.infra.client import publish_reward
    from odradek.infra.client.publish import publish_task
    from odradek.streams.drivers.kafka import KafkaDriver
    from odradek.streams.stages.intake import intake

    driver = KafkaDriver(of(addresses, "pipeline"), intake())
    task = asyncio.create_task(driver.run())
    await asyncio.wait(
        {task, asyncio.create_task(driver.ready.wait())}, return_when="FIRST_COMPLETED"
    )
    judge = await KafkaAppender.connect(of(addresses, "judge"))
    reward = Reward(episode_id="e1", component="game", value=1.0, source="/reward/game")
    await publish_reward(judge, reward)
    await judge.aclose()
    publisher = await KafkaAppender.connect(of(addresses, "publisher"))
    await publish_task(publisher, Task(task_id="t1", agent="hilo"))
    await publisher.aclose()
    async with asyncio.timeout(60):
        found: list[object] = []
        while reward not in found and not task.done():
            found = [
                one async for one in subscribe(TURNS.name, since="beginning", follow=False, bus=bus)
            ]
    assert reward in found
    assert not any(isinstance(one, EpisodeOpened) for one in found)
    driver.stop()
    await task
