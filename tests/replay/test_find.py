"""What is found in the past is what stands there."""

import asyncio
import json
import re
from uuid import uuid4

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.cli.look import find
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics
from odradek.schemas import codec
from odradek.schemas.arrays import pack_ids
from odradek.schemas.events import (
    Batch,
    Conversation,
    ConversationTurn,
    Episode,
    Pointer,
    Sequence,
)
from odradek.schemas.topics import BATCHES, CONVERSATIONS, EPISODES
from odradek.streams.errors import ReplayRefused
from odradek.streams.history.patterns import Phrase, Regex, TokenIds
from tests.support.trainer.trained_log import append

said = st.text('ab"\\\nä', max_size=6)


def conversation(*texts, name="e0", task="t0"):
    """One turn a text: as a message, and as the reply."""
    return Conversation(
        episode_id=name, task_id=task, agent="hilo", sample=0, input={"q": texts[0]},
        turns=tuple(
            ConversationTurn(
                turn_id=f"w-{n}",
                messages=[{"role": "user", "content": [{"type": "text", "text": text}]}],
                reply={"role": "assistant", "content": text[::-1]},
            )
            for n, text in enumerate(texts)
        ),
    )  # fmt: skip


def occurrences(texts, word):
    """How often words stand in texts, one after the other."""
    return sum(text.count(word) for text in texts)


@given(texts=st.lists(said, min_size=1, max_size=3), word=said.filter(bool))
def test_words_are_found_wherever_they_were_said(texts, word):
    """In messages, replies and inputs, whatever JSON makes of them; as an expression, too."""
    value = codec.encode(conversation(*texts))
    everything = [texts[0], *texts, *(text[::-1] for text in texts)]
    for pattern in (Phrase(word), Regex.parse(re.escape(word))):
        hits = list(pattern.hits(value))
        assert occurrences(everything, word) == len(hits)
        assert all(word in hit.text for hit in hits)


def test_names_of_fields_roles_and_ids_are_no_words():
    """Nobody said them."""
    value = codec.encode(conversation("hello"))
    for word in ("assistant", "w-0", "hilo", "content", "e0"):
        assert [] == list(Phrase(word).hits(value))
    assert ["input", "turn w-0"] == [hit.where for hit in Phrase("hello").hits(value)]
    assert 2 == len(list(Phrase("HELLO", ignore_case=True).hits(value)))
    assert [] == list(Phrase("HELLO").hits(value))


@given(ids=st.lists(st.integers(0, 3), max_size=12),
       needle=st.lists(st.integers(0, 3), min_size=1, max_size=3))  # fmt: skip
def test_token_ids_are_found_where_they_follow_each_other(ids, needle):
    """At each position, overlapping ones included, and never across two ids."""
    episode = Episode(
        episode_id="e", task_id="t", agent="a", sample=0, group_size=1,
        sequences=(Sequence(), Sequence(ids=pack_ids(ids))),
    )  # fmt: skip
    hits = list(TokenIds(tuple(needle)).hits(codec.encode(episode)))
    expected = [n for n in range(len(ids)) if ids[n : n + len(needle)] == needle]
    assert expected == [hit.start for hit in hits]
    assert {"sequence 1"} >= {hit.where for hit in hits}


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"turns": 3}', b'{"turns": [1]}', b"\xff"])
def test_what_is_no_event_has_nothing(value):
    """A search goes on behind it."""
    for pattern in (Regex.parse("."), TokenIds((1,))):
        assert [] == list(pattern.hits(value))


def test_what_cannot_be_searched_for_is_refused():
    """In one line."""
    with pytest.raises(ReplayRefused, match="no regular expression"):
        Regex.parse("(")
    for text in ("", "a", "-1", "1 x"):
        with pytest.raises(ReplayRefused, match="no token ids"):
            TokenIds.parse(text)
    assert TokenIds((12, 7)) == TokenIds.parse("12, 7")


def test_the_verb_searches_the_log_with_the_filters_of_replay(broker, monkeypatch):
    """Places, episodes and turns; 1 where nothing is found; no more than the limit."""
    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.")
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)

    async def prepare():
        await ensure_topics(bus)
        appender = await KafkaAppender.connect(bus)
        for n in range(4):
            name, task = f"e{n}", f"t{n}"
            await append(appender, CONVERSATIONS.name, name,
                         conversation(f"number {n}", name=name, task=task))  # fmt: skip
            episode = Episode(
                episode_id=name, task_id=task, agent="hilo", sample=0, group_size=1,
                sequences=(Sequence(ids=pack_ids([9, n, 7])),),
            )  # fmt: skip
            at = await append(appender, EPISODES.name, task, episode)
            pointer = Pointer(
                episode_id=name, sample=0, topic=EPISODES.name, partition=at.partition,
                offset=at.offset, digest=codec.digest(codec.encode(episode)), reward=float(n),
            )  # fmt: skip
            await append(appender, BATCHES.name, task,
                         Batch(task_id=task, group_size=1, episodes=(pointer,)))  # fmt: skip
        await appender.aclose()

    asyncio.run(prepare())

    def call(*words):
        return CliRunner().invoke(find.command, words)

    def found(*words):
        lines = call(*words, "--json", "--limit", "0").stdout.splitlines()
        return sorted({json.loads(line)["episode_id"] for line in lines})

    assert ["e0", "e1", "e2", "e3"] == found("number")
    assert ["e2"] == found("number 2")
    assert ["e2", "e3"] == found("--regex", r"number [23]")
    assert ["e1"] == found("--tokens", "9 1")
    assert ["e1", "e2"] == found("number", "--batches", "1:3")
    assert ["e3"] == found("--tokens", "9", "--reward", "2.5:")
    one = call("number 2")
    assert 0 == one.exit_code
    assert "e2  turn w-0: number 2" in one.stdout
    assert "2 found\n" == one.stderr
    assert "1 found, and ended there (--limit 1)\n" == call("number", "--limit", "1").stderr
    assert (1, "") == (call("nothing").exit_code, call("nothing").stdout)
    assert "one of them" in call("a", "--regex", "b").output
