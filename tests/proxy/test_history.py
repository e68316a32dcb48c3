"""What turns write is what is new, and puts the whole together again."""

import asyncio
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from odradek.infra.bus import MemoryAppender
from odradek.proxy.dialects import chat
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.episodes.history import (
    END_BYTES,
    EpisodeBranches,
    Leaf,
    ReplyEnd,
    common_messages,
    respelt,
)
from odradek.proxy.log import compose
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.settings import ProxySettings
from odradek.proxy.wire.reply import whole
from odradek.schemas import codec
from odradek.schemas.arrays import pack_ids, unpack_ids
from odradek.schemas.events import Turn
from odradek.schemas.sampling import NEUTRAL

from .conftest import END, prompt_ids, whole_messages, whole_prompts

TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=6)


@st.composite
def conversations(draw):
    """Requests of an episode: each goes on from, branches off or edits an earlier history."""
    histories, requests = [[]], []
    for n in range(draw(st.integers(1, 8))):
        before = draw(st.sampled_from(histories))
        kept = draw(st.integers(0, len(before)))
        messages = [*before[: draw(st.sampled_from([kept, len(before)]))]]
        messages += [{"role": "user", "content": text} for text in draw(st.lists(TEXT, max_size=2))]
        if draw(st.booleans()) and messages:
            messages[0] = {"role": "system", "content": draw(TEXT)}
        reply = {"role": "assistant", "content": f"r{n}{draw(TEXT)}"}
        requests.append((messages, reply))
        histories.append([*messages, reply])
    return requests


def reply_to(messages, message):
    """The engine's answer, with ids of the stub's chat template."""
    ids = [*message["content"].encode(), END]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "stop",
        "token_ids": ids,
        "logprobs": {"content": [{"logprob": -0.5}] * len(ids)},
    }
    return json.dumps({"choices": [choice], "prompt_token_ids": prompt_ids(messages)}).encode()


async def record(requests, tools=None):
    """The turns that these requests become in one episode."""
    log = MemoryAppender()
    recorder, story = TurnWriter(log, "w", lambda: 0.0), LiveEpisode("e", 0.0)
    for messages, reply in requests:
        body = json.dumps({"messages": messages, **({"tools": tools} if tools else {})}).encode()
        draft = compose.draft(
            chat.CHAT.parse(body, RequestRules()), whole(reply_to(messages, reply))[0]
        )
        await recorder.turn(story, draft)
    return [codec.decode(found.value, Turn) for found in log.records], story


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=80)
@given(conversations())
def test_deltas_reassemble_to_every_prompt_and_every_message(requests):
    """Whatever branches, edits and repeats an episode has."""
    turns, _ = asyncio.run(record(requests))
    messages, prompts = whole_messages(turns), whole_prompts(turns)
    for turn, (asked, _) in zip(turns, requests, strict=True):
        assert asked == messages[turn.turn_id]
        assert prompt_ids(asked) == unpack_ids(prompts[turn.turn_id]).tolist()


async def test_an_episode_writes_as_much_as_is_new():
    """Fifty turns write each message and each prompt id once."""
    history, requests = [], []
    for n in range(50):
        history = [*history, {"role": "user", "content": f"question {n}"}]
        reply = {"role": "assistant", "content": f"answer {n}"}
        requests.append((history, reply))
        history = [*history, reply]
    turns, story = await record(requests)
    assert all(len(turn.request.messages) == 1 for turn in turns)
    written = sum(len(turn.prompt.ids + turn.completion.ids) // 4 for turn in turns)
    assert written == len(prompt_ids(history)) - 1
    assert len(story.branches) == 1


async def test_a_sub_agents_calls_build_on_their_own_branch():
    """Interleaved calls of two agents compare with every open branch, not only with the last."""
    main, sub, requests = [], [], []
    for n in range(4):
        for who, history in (("main", main), ("sub", sub)):
            history.append({"role": "user", "content": f"{who} {n}"})
            reply = {"role": "assistant", "content": f"to {who} {n}"}
            requests.append((list(history), reply))
            history.append(reply)
    turns, story = await record(requests)
    bases = [turn.request.base for turn in turns]
    assert ["", "", *(turn.turn_id for turn in turns[:-2])] == bases
    assert len(story.branches) == 2


async def test_many_sub_agents_that_take_turns_each_write_what_is_new():
    """As many as an episode may have calls in flight; none pushes another one's branch out."""
    n_agents = ProxySettings(port=0).calls_per_episode
    histories = [[{"role": "user", "content": f"agent {n}"}] for n in range(n_agents)]
    requests = []
    for _ in range(3):
        for place, history in enumerate(histories):
            reply = {"role": "assistant", "content": f"to {place}"}
            requests.append((history, reply))
            histories[place] = [*history, reply, {"role": "user", "content": "more"}]
    turns, story = await record(requests)
    later = turns[n_agents:]
    assert {1} == {len(turn.request.messages) for turn in later}
    assert {len(prompt_ids([{"role": "user", "content": "more"}]))} == {
        len(turn.prompt.ids) // 4 for turn in later
    }
    assert len(story.branches) == n_agents


async def test_tools_are_written_once():
    """Then their digest stands for them."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    requests = [([{"role": "user", "content": c}], {"content": c}) for c in "ab"]
    for messages, reply in requests:
        reply["role"] = "assistant"
        assert messages
    turns, _ = await record(requests, tools)
    assert [1, 0] == [len(turn.request.tools) for turn in turns]
    assert turns[0].request.tools_digest == turns[1].request.tools_digest != ""


def test_memory_is_bounded_in_branches_and_bytes():
    """Old branches are forgotten first; the next turn of one is written whole."""
    branches = EpisodeBranches(max_leaves=3, max_bytes=100)
    for n in range(10):
        leaf = Leaf(turn_id=str(n), messages=[], reply=Raw(b"{}"), ids=pack_ids([n, 1]), size=10)
        branches.add(leaf)
    assert len(branches) == 3
    assert ("", 0) == branches.prompt(pack_ids([0, 1, 2]))
    assert ("9", 2) == branches.prompt(pack_ids([9, 1, 2]))
    branches.add(Leaf(turn_id="x", messages=[], reply=Raw(b"{}"), ids=b"", size=200))
    assert len(branches) == 0


def said(role, text):
    return Raw(json.dumps({"role": role, "content": text}).encode())


def leaf(turn_id, *texts, ends=()):
    """A turn whose history is these texts, its reply the last of them; an id for each."""
    *messages, reply = [said("ua"[n % 2], text) for n, text in enumerate(texts)]
    ids = pack_ids([sum(text.encode()) for text in texts])
    made = tuple(ReplyEnd(n, n - 1, n, True, b"") for n in ends)
    return Leaf(turn_id=turn_id, messages=messages, reply=reply, ids=ids, size=100, ends=made)


def ends_of(branches, *texts):
    """(turn_id, messages up to the reply) of what a conversation goes on from."""
    found = branches.reply([said("ua"[n % 2], text) for n, text in enumerate(texts)])
    return found and (found[0].turn_id, found[1].messages)


def test_ids_are_carried_on_behind_the_agents_own_history_only():
    """The longest reply that comes first; one that its agent has edited is another text."""
    branches = EpisodeBranches()
    branches.add(leaf("1", "q", "a", "r", "b", ends=(2, 4)))
    branches.add(leaf("2", "q", "a", "s", "c", ends=(2, 4)))
    assert ("1", 4) == ends_of(branches, "q", "a", "r", "b", "t")
    assert ("2", 4) == ends_of(branches, "q", "a", "s", "c", "t")
    assert 2 == ends_of(branches, "q", "a", "s", "edited", "t")[1]
    assert ends_of(branches, "q", "edited", "s") is None
    assert ends_of(branches, "q", "a") is None


def test_a_turn_that_goes_on_from_equal_ones_keeps_all_their_ends():
    """A first call repeated later has the same ids, and fewer replies in it."""
    branches = EpisodeBranches()
    for turn in (
        leaf("2", "q", "a", "r", "b", ends=(2, 4)),
        leaf("1", "q", "a", ends=(2,)),
        leaf("0", "q", "a", ends=(2,)),
    ):
        branches.add(turn)
    branches.add(leaf("3", "q", "a", "r", "b", "s", "c", ends=(6,)))
    assert 1 == len(branches)
    assert ("3", 4) == ends_of(branches, "q", "a", "r", "b", "other")


def test_a_turn_is_forgotten_only_for_one_that_has_all_of_it():
    """Its ids and its messages: where either differ, a later turn may still go on from it."""
    first, more = leaf("1", "q", "a"), pack_ids([1, 2])
    drifted = msgspec.structs.replace(leaf("2", "q", "a", "r", "b"), ids=more + first.ids)
    rewritten = msgspec.structs.replace(leaf("2", "x", "a", "r", "b"), ids=first.ids + more)
    for other in (drifted, rewritten):
        branches = EpisodeBranches()
        branches.add(first)
        branches.add(other)
        assert 2 == len(branches)


def test_what_branches_hold_is_counted():
    """A turn in place of the one it continues, its ends, and nothing after all is forgotten."""
    branches = EpisodeBranches()
    branches.add(leaf("1", "q", "a", ends=(2,)))
    assert 100 == branches.size
    branches.add(leaf("2", "q", "a", "r", "b", ends=(4,)))
    assert 100 + END_BYTES == branches.size
    branches.clear()
    assert (0, 0) == (branches.size, len(branches))


CALLED = (
    b'{"role":"assistant","reasoning":"%s","tool_calls":[{"id":"c","type":"function",'
    b'"function":{"name":"f","arguments":"{%s}"}}]}'
)


@pytest.mark.parametrize(
    ("echo", "same"),
    [
        (CALLED % (b"so", rb"\"a\":  1"), True),
        (CALLED % (b"", rb"\"a\":1"), True),
        (CALLED % (b"no", rb"\"a\": 1"), False),
        (CALLED % (b"so", rb"\"a\": 2"), False),
        (CALLED % (b"so", rb"\"a\": "), False),
        (b"{", False),
        (b"[]", False),
    ],
)
def test_clients_may_respell_arguments_and_leave_reasoning_out(echo, same):
    """Values count, and reasoning that is sent back is compared."""
    assert same == respelt(Raw(CALLED % (b"so", rb"\"a\": 1")), Raw(echo))


@pytest.mark.parametrize(
    ("echo", "kept"),
    [
        (b'{"role":"assistant","content":"r"}', 2),
        (b'{"content": "r",  "role": "assistant"}', 2),
        (b'{"role":"assistant","content":"edited"}', 1),
        (b'{"role":"assistant","content":"r","refusal":null,"tool_calls":[]}', 2),
        (b'{"role":"assistant","content":"r","refusal":"no"}', 1),
        (b'{"role":"assistant","content":"r","index":0}', 1),
        (b'{"role":"assistant","content":null}', 1),
        (b"{", 1),
        (b"null", 1),
    ],
)
def test_a_reply_counts_as_kept_only_if_it_is_equal_as_json(echo, kept):
    """Spacing, key order and empty fields are the client's; content is never guessed."""
    reply = Raw(b'{"role":"assistant","content":"r"}')
    leaf = Leaf(turn_id="t", messages=[Raw(b"1")], reply=reply, ids=b"", size=1)
    assert kept == common_messages(leaf, [Raw(b"1"), Raw(echo), Raw(b"3")])


def test_branches_begin_with_nothing():
    """And a turn on none of them stands alone."""
    branches = EpisodeBranches()
    assert (0, 0) == (branches.size, len(branches))
    assert ("", 0) == branches.prompt(pack_ids([1]))
    assert ("", 0) == branches.messages([said("user", "q")])


def test_the_longest_common_beginning_of_ids_wins():
    """By whole ids: one that shares some bytes of the next id has no more in common."""
    branches = EpisodeBranches()
    for turn_id, ids in (("long", [1, 2, 3]), ("short", [1, 0x0102])):
        branches.add(msgspec.structs.replace(leaf(turn_id, turn_id), ids=pack_ids(ids)))
    assert ("short", 1) == branches.prompt(pack_ids([1, 9]))
    assert ("long", 2) == branches.prompt(pack_ids([1, 2, 9]))
    assert ("short", 1) == branches.prompt(pack_ids([1, 0x0202]))


def test_a_turn_writes_its_sampling_unless_the_turn_before_had_the_same():
    """Whole: an old proxy's turn, which recorded less, is no turn to build on."""
    branches, whole_one = EpisodeBranches(), {"temperature": 1.0, **NEUTRAL}
    for turn_id, sampling in (("new", whole_one), ("old", {"temperature": 1.0})):
        branches.add(msgspec.structs.replace(leaf(turn_id, turn_id), sampling=sampling))
    assert {} == branches.sampling("new", whole_one)
    assert whole_one == branches.sampling("old", whole_one)
    assert {"temperature": 1.0} == branches.sampling("old", {"temperature": 1.0})
    assert whole_one == branches.sampling("", whole_one)
    other = whole_one | {"temperature": 0.5}
    assert other == branches.sampling("new", other)


def test_media_is_where_the_turn_before_had_it_or_what_is_new_begins_with_it():
    """Of a turn that is built on only what was kept of it counts."""
    picture = Raw(b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}')
    text, branches = said("user", "q"), EpisodeBranches()
    branches.add(msgspec.structs.replace(leaf("1", "q", "a", "r"), media=1))
    assert 1 == branches.media("1", [text, picture, text], 3)
    assert branches.media("1", [text], 1) is None
    assert 2 == branches.media("2", [text, text, picture], 1)
    assert branches.media("", [text], 0) is None


def test_ids_are_carried_on_behind_a_reply_that_its_client_has_respelt():
    """Only where all that stands before it is the same."""
    reply, respelled = (Raw(CALLED % (b"so", text)) for text in (rb"\"a\": 1", rb"\"a\":1"))
    branches = EpisodeBranches()
    branches.add(msgspec.structs.replace(leaf("1", "q", "a", ends=(2,)), reply=reply))
    turn, end = branches.reply([said("u", "q"), respelled, said("u", "r")])
    assert ("1", 2) == (turn.turn_id, end.messages)
    assert branches.reply([said("u", "edited"), respelled, said("u", "r")]) is None
    assert branches.reply([said("u", "q"), said("u", "r"), respelled]) is None
