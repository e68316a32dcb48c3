"""Recordings of other tools become episodes: what was said, what was sampled, and what is refused."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.datasets.episodes import episode_row
from odradek.infra.app.imports import chat, rows, spans, verifiers
from odradek.infra.app.imports.episodes import EpisodeNames, events_of, imported
from odradek.infra.app.imports.files import BadLine, ImportFile
from odradek.infra.app.imports.format import FORMATS, detected
from odradek.infra.app.imports.turns import Histories, tokens_of, turns_of
from odradek.infra.bus import Record
from odradek.infra.errors import BadRecording, ImportRefused
from odradek.schemas import codec
from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import Batch, Conversation, Episode, EpisodesEvent, Outcome, Pointer
from odradek.schemas.topics import BATCHES, CONVERSATIONS, DLQ, EPISODES, TURNS
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.verify import Conservation
from tests.support.schemas.event_builders import episode as played
from tests.support.schemas.event_builders import expected, opened, reward, sealed, tell, turn
from tests.support.streams.stage_drivers import MemoryWorld
from tests.support.trainer.trained_log import episode_of

USER = {"role": "user", "content": "2 + 2?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":2}'}}
ASKS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"role": "tool", "tool_call_id": "c1", "content": "4"}
SAYS = {"role": "assistant", "content": "4"}
CHAT = {"messages": [USER, ASKS, TOOL, SAYS], "tools": [{"type": "function"}]}
TRL = {"prompt": [USER], "completion": [SAYS]}
STEP = {
    "prompt": [USER],
    "completion": [ASKS],
    "tokens": {
        "prompt_ids": [1, 2], "prompt_mask": [0, 0], "completion_ids": [3, 4],
        "completion_mask": [1, 1], "completion_logprobs": [-0.5, -0.25],
    },
    "is_truncated": False,
}  # fmt: skip
SECOND = {
    "prompt": [USER, ASKS, TOOL],
    "completion": [SAYS],
    "tokens": {
        "prompt_ids": [1, 2, 3, 4, 5], "completion_ids": [6], "completion_mask": [1],
        "completion_logprobs": [-1.5],
    },
    "is_truncated": True,
}  # fmt: skip
ROLLOUT = {
    "example_id": 7, "task": "sums", "prompt": [USER], "completion": [ASKS, TOOL, SAYS],
    "answer": "4", "info": '{"level":1}', "reward": 1.0, "metrics": {"right": 1.0, "n": 3},
    "timing": {"start_time": 1_700_000_000.5}, "error": None, "is_truncated": False,
}  # fmt: skip
TRACED = ROLLOUT | {"trajectory": [STEP, SECOND]}
SPANS = [
    {
        "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": 1, "span_id": "a",
        "parent_id": None, "name": "openai.chat.completion", "start_time": 10.0, "end_time": 11.0,
        "attributes": {
            "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "2 + 2?",
            "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.finish_reason": "stop",
            "gen_ai.completion.0.tool_calls.0.id": "c1",
            "gen_ai.completion.0.tool_calls.0.name": "add",
            "gen_ai.completion.0.tool_calls.0.arguments": '{"a":2}',
            "gen_ai.response.id": "r1", "agent.name": "adder",
            "prompt_token_ids": [1, 2], "response_token_ids": [3, 4],
            "logprobs.content": '[{"token":"x","logprob":-0.5},{"token":"y","logprob":-0.25}]',
        },
    },
    {
        "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": 3, "span_id": "c",
        "parent_id": None, "name": "agentlightning.annotation", "start_time": 14.0,
        "attributes": {
            "agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": 0.5,
            "agentlightning.reward.1.name": "brief", "agentlightning.reward.1.value": 1.0,
        },
    },
    {
        "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": 2, "span_id": "b",
        "parent_id": None, "name": "openai.chat.completion", "start_time": 12.0, "end_time": 13.0,
        "attributes": {
            "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "2 + 2?",
            "gen_ai.prompt.1.tool_calls.0.id": "c1", "gen_ai.prompt.1.tool_calls.0.name": "add",
            "gen_ai.prompt.1.tool_calls.0.arguments": '{"a":2}',
            "gen_ai.prompt.2.tool_call_id": "c1", "gen_ai.prompt.2.content": "4",
            "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "4",
            "gen_ai.response.id": "r2",
        },
    },
]  # fmt: skip
POINTER = Pointer(
    episode_id="e", sample=0, topic="rl.episodes.v1", partition=1, offset=2, digest="d", reward=0.5
)
PLACE = ("batch", "topic", "partition", "offset", "digest")


def events(recording, format_="chat", **more):
    """The events of a recording, as their readers have them."""
    made = imported(recording, EpisodeNames().name(recording), format_, **more)
    kinds = {EPISODES.name: Episode, CONVERSATIONS.name: Conversation}
    decoded = [codec.decode(record.value, kinds[record.topic]) for record in made.records]
    assert [record.key for record in made.records] == [
        getattr(event, "task_id" if isinstance(event, Episode) else "episode_id")
        for event in decoded
    ]
    return (*decoded, None)[:2]


said = st.sampled_from(["a", "b", ""])
message = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text},
              st.sampled_from(["system", "user", "assistant", "tool"]), said),
    st.just(ASKS), st.just(TOOL),
    st.just({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}),
)  # fmt: skip
history = st.lists(message, max_size=8)


@given(history.filter(lambda all_: any(one["role"] == "assistant" for one in all_)))
def test_no_word_of_a_conversation_is_lost(messages):
    """All messages come back in their order, the last ones included, and each reply is a call."""
    _, words = events(chat.parse({"messages": messages}))
    assert messages == words.messages
    replies = [one for one in messages if one["role"] == "assistant"]
    assert replies == [turn.reply for turn in words.replies]


@given(history)
def test_words_alone_are_never_trainable(messages):
    """Each call is left out as `no_logprobs`, and there is no sequence."""
    messages = [*messages, SAYS]
    episode, words = events(chat.parse({"messages": messages, "reward": 1}))
    assert ((), len(words.replies)) == (episode.sequences, episode.n_turns)
    assert {turn.turn_id: "no_logprobs" for turn in words.replies} == episode.untrained_turns
    assert ("chat", Outcome.COMPLETED, 1.0) == (
        episode.imported_from, episode.outcome, episode.reward,
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.sampled_from([USER, TOOL]), max_size=2),
                          st.sampled_from([ASKS, SAYS])), min_size=1, max_size=6))  # fmt: skip
def test_calls_that_hold_all_messages_become_deltas(calls):
    """Whatever branches there are, each call's whole request comes back."""
    histories, requests, ends = Histories(), [], [[]]
    for base, fresh, reply in calls:
        request = [*ends[base % len(ends)], *fresh]
        requests.append([*request, reply])
        ends.append(requests[-1])
        histories.add(request, reply)
    known = []
    for call in histories.turns:
        before = known[call.base][: call.prefix_len] if call.base >= 0 else []
        known.append([*before, *call.messages, call.reply])
    assert requests == known


def test_prompt_and_completion_are_one_conversation():
    """TRL's form, in messages or as text, makes what the same messages make."""
    plain = {"prompt": "2 + 2?", "completion": "4"}
    assert chat.parse(TRL).turns == chat.parse(plain).turns == turns_of([USER, SAYS])


def test_a_rollout_of_verifiers_keeps_its_scores():
    """Rewards by component, what was asked, and the example it is of."""
    episode, words = events(verifiers.parse(ROLLOUT), "verifiers")
    assert ("sums/7", "sums", 1.0) == (episode.item, episode.agent, episode.reward)
    assert {"n": 3.0, "reward": 1.0, "right": 1.0} == episode.components
    assert [USER, ASKS, TOOL, SAYS] == words.messages
    assert {"info": {"level": 1}, "answer": "4"} == words.input
    assert {"no_logprobs"} == set(episode.untrained_turns.values())
    failed, _ = events(verifiers.parse(ROLLOUT | {"error": {"error": "ToolError"}}), "verifiers")
    assert (Outcome.FAILED, "ToolError") == (failed.outcome, failed.error)


def test_a_trajectory_of_verifiers_keeps_its_tokens():
    """Two calls of which the second goes on are one sequence; no version is claimed for it."""
    recording = verifiers.parse(TRACED)
    episode, words = events(recording, "verifiers")
    (sequence,) = episode.sequences
    assert [1, 2, 3, 4, 5, 6] == unpack_ids(sequence.ids).tolist()
    assert [-0.5, -0.25, -1.5] == unpack_floats(sequence.logprobs).tolist()
    assert [(2, 4, False), (5, 6, True)] == [(s.start, s.end, s.truncated) for s in sequence.spans]
    assert ((), {}, True) == (
        sequence.versions, episode.untrained_turns,
        imported(recording, EpisodeNames().name(recording), "verifiers").trainable,
    )  # fmt: skip
    assert [USER, ASKS, TOOL, SAYS] == words.messages


def test_spans_of_an_attempt_are_an_episode():
    """In their order, with tools, tokens where all are there, and the last reward."""
    recording = spans.parse(SPANS)
    episode, words = events(recording, "agent-lightning")
    assert [USER, ASKS, TOOL, SAYS] == words.messages
    assert (0.5, {"brief": 1.0, "reward": 0.5}, "adder") == (
        episode.reward, episode.components, episode.agent,
    )  # fmt: skip
    (sequence,) = episode.sequences
    assert ([1, 2, 3, 4], [-0.5, -0.25]) == (
        unpack_ids(sequence.ids).tolist(), unpack_floats(sequence.logprobs).tolist(),
    )  # fmt: skip
    assert {words.turns[1].turn_id: "no_logprobs"} == episode.untrained_turns
    assert (10.0, 14.0) == (episode.opened_at, episode.closed_at)


@given(st.recursive(st.integers() | said, lambda inner: st.lists(inner, min_size=1, max_size=3)
                    | st.dictionaries(st.sampled_from("xyz"), inner, min_size=1), max_leaves=8))  # fmt: skip
def test_flattened_attributes_are_put_together_again(tree):
    """Lists and objects of any depth, as tracers write them under dotted names."""
    flat = {}

    def flatten(node, path):
        if isinstance(node, dict | list):
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            for name, inner in pairs:
                flatten(inner, f"{path}.{name}")
        else:
            flat[path] = node

    flatten({"t": tree}, "p")
    assert {"t": tree} == spans.unflattened(flat | {"other.t": 1}, "p")


@given(seed=st.integers(0, 50), sample=st.integers(0, 3), version=st.integers(1, 9),
       reward=st.none() | st.floats(-2, 2), attempt=st.integers(1, 3))  # fmt: skip
def test_exported_rows_come_back_as_they_were(seed, sample, version, reward, attempt):
    """Ids, log probabilities, versions and spans, to the bit; only their place is another."""
    first = msgspec.structs.replace(
        episode_of(seed, "t", sample, version), reward=reward, attempt=attempt
    )
    pointer = msgspec.structs.replace(POINTER, reward=float("nan") if reward is None else reward)
    row = msgspec.json.decode(msgspec.json.encode(episode_row(3, pointer, first)))
    recording = rows.parse(row)
    again, words = events(recording, "odradek")
    after = msgspec.json.decode(msgspec.json.encode(episode_row(-1, pointer, again)))
    assert [row[name] for name in row if name not in PLACE] == [
        after[name] for name in after if name not in PLACE
    ]
    assert (first.episode_id, "odradek", None) == (again.episode_id, again.imported_from, words)


@pytest.mark.parametrize(
    ("record", "format_"),
    [
        (CHAT, "chat"), (TRL, "chat"), (TRL | {"reward": 1.0, "label": True}, "chat"),
        (ROLLOUT, "verifiers"), (TRACED, "verifiers"), (SPANS[0], "agent-lightning"),
        (episode_row(1, POINTER, episode_of(1, "t", 0, 1)), "odradek"),
    ],
)  # fmt: skip
def test_a_format_is_known_by_its_fields(record, format_):
    """And no other takes the record first."""
    assert format_ == detected(record, "here")


def test_a_record_of_no_format_names_those_that_there_are():
    """With what each looks like."""
    with pytest.raises(ImportRefused) as refused:
        detected({"text": "once upon a time"}, "a.jsonl, line 1,")
    assert all(name in str(refused.value) for name in FORMATS)


FIELDS = sorted({*CHAT, *TRACED, *SPANS[0], *STEP, "reward", "episode_id", "sequences", "task_id"})
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | said,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, "role", "content", "0"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(record=st.dictionaries(st.sampled_from(FIELDS), anything | st.just([USER, SAYS])),
       name=st.sampled_from(sorted(FORMATS)))  # fmt: skip
def test_any_record_is_an_episode_or_says_why_not(record, name):
    """No other error leaves a parser, whatever a line holds."""
    format_ = FORMATS[name]
    try:
        if format_.key is not None:
            format_.key(record)
        recording = format_.parse([record])
        made = imported(recording, EpisodeNames().name(recording), name)
    except BadRecording as error:
        assert str(error)
    else:
        assert made.episode_id


@pytest.mark.parametrize(
    ("prompt", "sampled", "logprobs"),
    [
        ([1], [2, 3], [-0.5]), ([1], [2], [None]), ([1], [2], [float("nan")]), ([1], [], []),
        ([1], [2.5], [-0.5]), ([-1], [2], [-0.5]), ([1], [2**40], [-0.5]), (None, [2], [-0.5]),
        ([1], [2], None), ([], [2], [-0.5]), ([1], [True], [-0.5]), ([1], [2], ["-0.5"]),
        ([1], [2], [-1e300]), ([1], [2], [10**400]),
    ],
)  # fmt: skip
def test_tokens_that_are_not_whole_count_as_none(prompt, sampled, logprobs):
    """A number that is missing or no number is never made up."""
    assert tokens_of(prompt, sampled, logprobs) is None


def test_names_follow_from_what_was_recorded():
    """Equal records of a file are different samples; another file tells the same ones again."""
    names_ = EpisodeNames()
    first, second = (
        names_.name(chat.parse(TRL)),
        names_.name(chat.parse(dict(reversed(TRL.items())))),
    )
    names_.begin_file()
    again = names_.name(chat.parse(TRL))
    assert first.episode_id == again.episode_id != second.episode_id
    assert first.task_id == second.task_id
    assert (0, 1) == (first.sample, second.sample)
    other = names_.name(chat.parse(TRL | {"reward": 1.0}))
    assert other.episode_id not in {first.episode_id, second.episode_id}


def test_options_name_agent_and_purpose():
    """In both events."""
    recording = chat.parse(TRL)
    made = events_of(recording, EpisodeNames().name(recording), "chat", agent="x", purpose="eval")
    assert [("x", "eval")] * 2 == [(event.agent, event.purpose) for event in made]


RECORDINGS = [
    ("chat", chat.parse(TRL | {"reward": 1.0, "task_id": "t1"})),
    ("verifiers", verifiers.parse(TRACED)),
    ("agent-lightning", spans.parse(SPANS)),
    ("odradek", rows.parse(episode_row(1, POINTER, episode_of(1, "t1", 0, 1)))),
]


@given(st.lists(st.integers(0, len(RECORDINGS) - 1), max_size=6),
       st.permutations([expected(size=2), played(0), played(1)]))  # fmt: skip
def test_no_imported_episode_gets_into_a_batch(chosen, story):
    """Neither with tokens nor without, whatever task it names and wherever it stands."""
    names_ = EpisodeNames()
    foreign = [
        events_of(recording, names_.name(recording), format_)[0]
        for format_, recording in (RECORDINGS[n] for n in chosen)
    ]
    told = list(story)
    for at, event in enumerate(foreign):
        told.insert(at * 7 % (len(told) + 1), event)
    assert tell(GROUP, story) == _without_offsets(tell(GROUP, told), story)


def _without_offsets(result, story):
    """Batches with the offsets that they have where nothing was imported."""
    plain = {p.episode_id: p for batch in tell(GROUP, story)[0] for p in batch.episodes}
    batches = [
        msgspec.structs.replace(batch, episodes=tuple(
            msgspec.structs.replace(p, offset=plain[p.episode_id].offset) for p in batch.episodes
        ))
        for batch in result[0]
    ]  # fmt: skip
    return batches, result[1]


def test_bad_lines_have_their_number_and_reason(tmp_path):
    """And do not hide those behind them."""
    path = tmp_path / "mixed.jsonl"
    bad = ["{", "[1]", json.dumps({"messages": [USER]}), json.dumps({"messages": "x"}) + " ",
           json.dumps({"other": 1}), json.dumps({"messages": [SAYS], "reward": "high"})]  # fmt: skip
    path.write_text("\n".join([json.dumps(CHAT), "", *bad, json.dumps(TRL)]) + "\n")
    read = list(ImportFile.of(path).recordings())
    lines = [each for each in read if isinstance(each, BadLine)]
    assert [1, 9] == [each[0] for each in read if not isinstance(each, BadLine)]
    assert [3, 4, 5, 6, 7, 8] == [each.line for each in lines]
    reasons = ["is no JSON: ", "is no JSON object", "nothing was replied", "nothing was replied",
               "no record of the format chat", "no finite number"]  # fmt: skip
    assert all(reason in each.why for reason, each in zip(reasons, lines, strict=True))
    assert f"{path}, line 3: it is no JSON" in str(lines[0])


def test_a_file_that_cannot_be_imported_is_one_clear_line(tmp_path):
    """A folder, nothing at all, no Parquet, and a first line that is none."""
    for name, text, why in [("empty.jsonl", "\n", "no records"), ("a.parquet", "x", "no Parquet"),
                            ("a.jsonl", "{", "say --format")]:  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(ImportRefused, match=why):
            ImportFile.of(tmp_path / name)
    with pytest.raises(ImportRefused, match="is a folder"):
        ImportFile.of(tmp_path)


def test_spans_of_two_attempts_may_be_mixed(tmp_path):
    """Each is an episode, and begins at its first span."""
    other = [span | {"attempt_id": "at-2"} for span in SPANS]
    mixed = [span for pair in zip(SPANS, other, strict=True) for span in pair]
    path = tmp_path / "spans.jsonl"
    path.write_text("".join(json.dumps(span) + "\n" for span in mixed))
    assert [1, 2] == [line for line, _ in ImportFile.of(path).recordings()]


async def test_stages_batch_what_was_played_beside_what_was_imported():
    """From turns to batches: one batch, of the played episodes alone, and no dead letter."""
    world = MemoryWorld()
    await world.run(ASSEMBLE, GROUP)
    names_ = EpisodeNames()
    story = [(expected(size=2), EPISODES)]
    for name, sample in (("e0", 0), ("e1", 1)):
        story += [(opened(name, sample=sample), TURNS), (turn(name), TURNS),
                  (reward(name, float(sample)), TURNS), (sealed(name), TURNS)]  # fmt: skip
    for at, (event, topic) in enumerate(story):
        format_, recording = RECORDINGS[at % len(RECORDINGS)]
        made = imported(recording, names_.name(recording), format_)
        for record in made.records:
            await world.log.append(record.topic, key=record.key, value=record.value)
        await world.write(event, topic)
    (batch,) = await world.until(BATCHES, 1)
    assert ["e0", "e1"] == [p.episode_id for p in codec.decode(batch.value, Batch).episodes]
    assert [] == world.log.on(DLQ.name)
    conservation = Conservation()
    for topic in (TURNS, EPISODES, BATCHES):
        for record in world.log.on(topic.name):
            conservation.feed(record)
    report = conservation.report()
    assert (True, []) == (report["closed"], report["problems"])
    assert len({*(e.episode_id for e in _foreign(world))}) == report["imported"]


def _foreign(world):
    """The imported episodes of a world."""
    events_ = (codec.decode(record.value, EpisodesEvent) for record in world.log.on(EPISODES.name))
    return [event for event in events_ if getattr(event, "imported_from", "")]


def test_verify_finds_an_imported_episode_that_is_there_twice():
    """In other bytes, or beside one that was played here."""
    recording = chat.parse(TRL | {"episode_id": "e1"})
    name = EpisodeNames().name(recording)
    one, other = (events_of(recording, name, "chat", agent=agent)[0] for agent in "ab")
    for told in ([(one, EPISODES), (other, EPISODES)], [(opened("e1"), TURNS), (one, EPISODES)]):
        conservation = Conservation()
        for at, (event, topic) in enumerate(told):
            conservation.feed(Record(topic.name, 0, at, None, codec.encode(event), (), 1.0))
        assert "imported episode e1" in conservation.report()["duplicated"]
