"""What a person says of an episode is a signed reward, and counts as one that came late."""

import asyncio
import json
from uuid import uuid4

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.cli.judge import judge
from odradek.infra.app.cli.start import keys
from odradek.infra.app.history.sections import Facts
from odradek.infra.app.judging.queue import Candidate, judged, pairs, queue, wants
from odradek.infra.app.judging.sections import judged_sections
from odradek.infra.app.judging.verdicts import RewardScale, pair_verdicts, source_of, verdict
from odradek.infra.bus import (
    BusSettings,
    MemoryAppender,
    RecordAddress,
    ensure_topics,
    looking_up,
)
from odradek.infra.client import publish_reward
from odradek.infra.errors import VerdictRefused
from odradek.infra.runtime.foreign_code import printable
from odradek.infra.runtime.reward_signatures import Verifier
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.events import ConversationTurn, Outcome, Reward
from odradek.schemas.revisions import RevisionBook, revised_reward
from odradek.schemas.topics import DLQ, REVISIONS, REWARDS, TURNS
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.intake import intake
from tests.support.schemas.event_builders import episode
from tests.support.streams.conversations import conversation, write

KEY = "p" * 32
names = st.text("abc", min_size=1, max_size=3)


def candidates(ids):
    """One a name; the task is its first letter."""
    return [
        Candidate(RecordAddress("rl.conversations.v1", 0, n), name, name[0])
        for n, name in enumerate(ids)
    ]


@given(ids=st.lists(names, max_size=20), done=st.frozensets(names, max_size=5), blind=st.booleans())
def test_a_queue_holds_what_is_left_once(ids, done, blind):
    """In the order of the log, or in a blind one, which is the same whatever came before."""
    left = [one.episode_id for one in queue(candidates(ids), done, source="person/a", blind=blind)]
    assert set(ids) - done == set(left)
    assert len(set(left)) == len(left)
    again = queue(candidates(sorted(ids, reverse=True)), done, source="person/a", blind=True)
    if blind:
        assert left == [one.episode_id for one in again]
    else:
        assert left == [name for name in dict.fromkeys(ids) if name not in done]


@given(ids=st.lists(names, max_size=20), done=st.frozensets(names, max_size=5))
def test_pairs_are_of_one_task_and_no_episode_is_in_two(ids, done):
    """At most one of each task is left over, and what is judged is in none."""
    found = pairs(candidates(ids), done, source="person/a")
    members = [one.episode_id for pair in found for one in (pair.left, pair.right)]
    assert len(set(members)) == len(members)
    assert not done & set(members)
    assert all(pair.left.task_id == pair.right.task_id for pair in found)
    over = [name[0] for name in set(ids) - done - set(members)]
    assert len(set(over)) == len(over)


def test_sides_are_drawn_and_differ_from_person_to_person():
    """So neither side is the earlier sample, and two people do not share a bias."""
    ids = [f"{letter}{n}" for letter in "abcdefgh" for n in range(2)]
    lefts = [
        tuple(pair.left.episode_id for pair in pairs(candidates(ids), frozenset(), source=f"{n}"))
        for n in range(6)
    ]
    assert 6 == len(set(lefts))
    assert {"0", "1"} == {name[-1] for left in lefts for name in left}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"reward_components": ("other",)}, False),
        ({"reward_components": ()}, False),
        ({"outcome": Outcome.FAILED}, False),
        ({"parent": "p"}, False),
    ],
)
def test_only_what_a_reward_would_change_is_judged(more, expected):
    """A failed episode has its failure reward, and a child's late reward changes nothing."""
    assert expected == wants(conversation("e", **more), "brief")
    assert wants(conversation("e", reward_components=("x",)), "brief", everything=True)
    assert wants(conversation("e", reward_components=()), "reward")


def test_what_others_have_judged_is_not_judged():
    """Nor what the same person said of another component."""
    given_ = [
        Reward(episode_id="a", component="x", value=1.0, source="person/ada"),
        Reward(episode_id="b", component="y", value=1.0, source="person/ada"),
        Reward(episode_id="c", component="x", value=1.0, source="person/eve"),
    ]
    assert {"a"} == judged(given_, "person/ada", "x")


@settings(max_examples=30)
@given(low=st.floats(-9, 9), span=st.floats(0.1, 9), part=st.floats(0, 1))
def test_a_verdict_lies_on_its_scale(low, span, part):
    """Both ends included; a pair takes the ends, and equal ones the middle."""
    scale = RewardScale.parse(f"{low!r}:{low + span!r}")
    value = min(scale.high, max(scale.low, low + part * span))
    assert value == verdict("ada", "e", "x", value, scale=scale).value
    for better, expected in (
        ("left", (scale.high, scale.low)),
        ("right", (scale.low, scale.high)),
        ("equal", (scale.middle, scale.middle)),
    ):
        rewards = pair_verdicts("ada", ("e", "f"), "x", better, scale=scale)
        assert expected == tuple(one.value for one in rewards)
        assert ("e", "f") == tuple(one.episode_id for one in rewards)
        assert "f" in rewards[0].explanation
        assert {"person/ada"} == {one.source for one in rewards}


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda: source_of("ada/eve"), "cannot name a person"),
        (lambda: source_of(""), "cannot name a person"),
        (lambda: verdict("ada", "e", "", 1.0), "cannot name a component"),
        (lambda: verdict("ada", "e", "x", 2.0), "does not lie on the scale from 0 to 1"),
        (lambda: verdict("ada", "e", "x", float("nan")), "does not lie on the scale"),
        (lambda: verdict("ada", "e", "x", 1.0, why="a" * 2001), "shorten it"),
        (lambda: pair_verdicts("ada", ("e", "e"), "x", "left"), "with itself"),
        *((lambda text=text: RewardScale.parse(text), "is no scale")
          for text in ("", "1", "1:0", "a:b", "nan:1", "0:inf", "0:1:2")),
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_refused(wrong, line):
    """In one line that says what to write."""
    with pytest.raises(VerdictRefused, match=line):
        wrong()


async def taken(reward, *, key="", known=None):
    """A person's late reward through intake and assembler: the log behind it."""
    log = MemoryAppender(1)
    await publish_reward(log, reward, event_id=uuid4().hex)
    await MemoryDriver(log, intake(None, Verifier(known))).step()
    await MemoryDriver(log, ASSEMBLE).step()
    return log


async def test_a_persons_reward_becomes_a_late_one(monkeypatch):
    """Signed by them, checked at the intake, and laid over the episode that is closed."""
    monkeypatch.setenv("ODRADEK_JUDGE_KEY", KEY)
    reward = verdict("ada", "t1-0", "game", 0.25, why="rude")
    log = await taken(reward, known={"person/ada": KEY})
    (late,) = log.on(REVISIONS.name)
    assert reward == codec.decode(late.value, Reward)
    book = RevisionBook()
    book.read(0, late.value, late.headers)
    closed = episode(0, "t1-0", reward=1.0, components={"game": 1.0}, weights={"game": 1.0})
    assert 0.25 == revised_reward(closed, book.of("t1-0")).reward


@pytest.mark.parametrize("known", [None, {"/reward/*": KEY}, {"person/ada": "x" * 32}])
@pytest.mark.parametrize("key", ["", KEY])
async def test_nobody_speaks_for_a_person_by_writing_a_name(known, key, monkeypatch):
    """Without the key that the intake has, it is a dead letter: also where it has none."""
    monkeypatch.setenv("ODRADEK_JUDGE_KEY", key)
    log = await taken(verdict("ada", "e", "game", 1.0), known=known)
    assert [] == log.on(TURNS.name)
    (letter,) = log.on(DLQ.name)
    assert ("bad_signature" if key else "unsigned") == header(letter.headers, "dlq-reason")


@given(text=st.text())
def test_what_an_agent_wrote_moves_no_cursor(text):
    """Everything that a terminal would obey is spelt out."""
    assert all(each.isprintable() or each in "\n\t" for each in printable(text, kept="\n\t"))


def test_blind_nothing_tells_where_an_episode_is_from():
    """The words are there, and neither agent, task, item, sample nor id."""
    turn = ConversationTurn(
        turn_id="w-1",
        messages=[{"role": "user", "content": "how?"}],
        reply={"role": "assistant", "content": "so", "tool_calls": [
            {"id": "c", "function": {"name": "look", "arguments": "{}"}}]},
    )  # fmt: skip
    one = conversation("episode-7", task_id="task-7", agent="agent-7", item="item-7", sample=7,
                       input={"q": "say"}, turns=(turn,))  # fmt: skip
    shown, blind = (
        str([each.pairs for each in judged_sections(one, "1 of 2", blind=hidden)
             if isinstance(each, Facts)])
        for hidden in (False, True)
    )  # fmt: skip
    for word in ("episode-7", "task-7", "agent-7", "item-7"):
        assert word in shown
        assert word not in blind
    for word in ("how?", "so", "look {}", '{"q":"say"}'):
        assert word in blind


def call(command, *words, **more):
    return CliRunner().invoke(command, words, **more)


def test_keys_of_people_are_made_for_them_and_for_the_intake(monkeypatch):
    """What each of the two lines says fits the other."""
    own, other = call(keys.command, "judge", "ada").stdout.splitlines()
    key = own.rpartition("=")[2]
    known = json.loads(other.partition("ODRADEK_JUDGE_KEYS=")[2].strip("'"))
    assert {"person/ada": key} == known
    assert 64 == len(key)
    refused = call(keys.command, "judge", "a/b").exception
    assert "cannot name a person" in str(refused)


def test_a_person_without_a_key_is_told_how_to_get_one(monkeypatch):
    """Before the log is asked for anything."""
    monkeypatch.setenv("ODRADEK_JUDGE_KEY", "")
    for words in (("give", "e", "brief", "1", "--as", "ada"), ("next", "brief", "--as", "ada")):
        assert "odradek keys judge" in str(call(judge.command, *words).exception)


def test_the_verb_judges_what_is_on_the_log(broker, monkeypatch):
    """Alone and in pairs, each verdict at once; what is judged does not come again."""
    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.")
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)
    monkeypatch.setenv("ODRADEK_JUDGE_KEY", KEY)

    async def prepare():
        await ensure_topics(bus)
        turns = (
            ConversationTurn(turn_id="w", reply={"role": "assistant", "content": "\x1b[2Jhi"}),
        )
        await write(
            bus,
            *(conversation(f"e{n}", task_id=f"t{n // 2}", turns=turns) for n in range(4)),
            conversation("failed", outcome=Outcome.FAILED),
        )

    async def written():
        async with looking_up(bus) as lookup:
            records = [record async for record in lookup.whole(REWARDS.name)]
        verifier = Verifier({"person/ada": KEY})
        assert {""} == {verifier.fault("person/ada", each.value, each.headers) for each in records}
        rewards = [codec.decode(each.value, Reward) for each in records]
        return {(one.episode_id, one.value) for one in rewards}

    asyncio.run(prepare())
    as_ada = ("brief", "--as", "ada")
    listed = call(judge.command, "queue", *as_ada).stdout.split()
    assert ["e0", "e1", "e2", "e3"] == sorted(listed)
    assert 0 == call(judge.command, "give", "e1", "brief", "1", "--as", "ada").exit_code
    unknown = call(judge.command, "give", "e9", "brief", "1", "--as", "ada")
    assert "holds no conversation of an episode 'e9'" in str(unknown.exception)
    in_vain = call(judge.command, "give", "failed", "brief", "1", "--as", "ada")
    assert "changes nothing: the episode is failed" in in_vain.stderr

    asked = call(judge.command, "next", *as_ada, "--task", "t0", input="7\n0.5\n")
    assert "does not lie on the scale" in asked.stderr
    assert "\x1b" not in asked.stdout
    assert "1 verdicts of ada" in asked.stderr
    (pair,) = call(judge.command, "queue", *as_ada, "--pairs", "--json").stdout.splitlines()
    left, right = json.loads(pair)
    assert {"e2", "e3"} == {left, right}
    assert 0 == call(judge.command, "next", *as_ada, "--pairs", input="l\n").exit_code
    assert {("e1", 1.0), ("failed", 1.0), ("e0", 0.5), (left, 1.0), (right, 0.0)} == asyncio.run(
        written()
    )
    assert "0 left" in call(judge.command, "queue", *as_ada).stderr
    assert 4 == len(call(judge.command, "queue", "brief", "--as", "eve", "--blind").stdout.split())
