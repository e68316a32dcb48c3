"""The topic table is complete, and what is printed from it agrees with it."""

import json
import re
from pathlib import Path

import pytest

from odradek.schemas import asyncapi
from odradek.schemas.errors import UnknownTopic
from odradek.schemas.topics import (
    A2A_EVENTS,
    A2A_REQUESTS,
    A2A_TASKS,
    AGENT_TOPICS,
    CLIENT_TOPICS,
    TOPICS,
    agent_topic,
    find,
)

ALL = (*TOPICS, *AGENT_TOPICS, *CLIENT_TOPICS)
DOC = Path(__file__).parents[2] / "docs" / "topics.md"


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_every_topic_is_documented(row):
    """docs/topics.md holds a row for each topic, with its key and its types."""
    lines = [line for line in DOC.read_text().splitlines() if line.startswith(f"| `{row.name}`")]
    assert 1 == len(lines)
    assert row.key in lines[0]
    for kind in row.types:
        assert kind.__name__ in lines[0]


def test_docs_name_no_topic_that_is_not_there():
    """A topic in the docs' table is a topic of the program."""
    named = set(re.findall(r"^\| `([^`]+)`", DOC.read_text(), flags=re.MULTILINE))
    assert {row.name for row in ALL} == named


def test_agents_of_one_name_share_partition_counts():
    """Requests, events and task snapshots are co-partitioned."""
    assert 1 == len({row.partitions for row in AGENT_TOPICS})


def test_snapshots_go_when_their_requests_do():
    """A request that can still be read finds its snapshot, and no snapshot stays for ever."""
    config = A2A_TASKS.config
    assert "compact,delete" == config["cleanup.policy"]
    assert A2A_REQUESTS.config["retention.ms"] == config["retention.ms"]


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_what_is_compacted_alone_is_one_record_for_each_name(row):
    """Policies and cards are few; whatever grows with the work is deleted in the end."""
    alone = row.config["cleanup.policy"] == "compact"
    assert (row.name in {"rl.policies.v1", "a2a.cards"}) == alone
    assert ("-1" == row.config["retention.ms"]) == alone


def test_an_agents_topic_is_found_by_its_name():
    """`a2a.events.hilo` is a row of the table with the agent filled in."""
    assert "a2a.events.hilo" == agent_topic(A2A_EVENTS, "hilo") == find("a2a.events.hilo").name


@pytest.mark.parametrize("name", ["", "a.b", "../x", "a b", "ü", "-a", "a" * 64])
def test_names_that_cannot_be_topics_are_refused(name):
    """What comes from outside never makes a topic name of its own."""
    with pytest.raises(UnknownTopic):
        agent_topic(A2A_EVENTS, name)


def test_an_unknown_topic_is_told_with_the_known_ones():
    """A mistyped topic gets the list of those that exist."""
    with pytest.raises(UnknownTopic, match=r"rl\.turns\.v1"):
        find("rl.turn.v1")


def test_asyncapi_describes_every_topic_and_type():
    """Channels, messages and schemas cover the table, and every reference resolves."""
    document = asyncapi.document(version="1")
    assert "3.0.0" == document["asyncapi"]
    assert {row.name for row in ALL} == {
        channel["address"] for channel in document["channels"].values()
    }
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        at = document
        for part in reference.split("/"):
            at = at[part]
