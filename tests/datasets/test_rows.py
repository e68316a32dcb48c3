"""Rows of words and of tokens: what becomes one, what is left out, and that TRL reads them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odradek.infra.app.datasets import FORMATS
from odradek.infra.app.datasets.files import JsonLinesFile, row_file, schema_of
from odradek.infra.app.datasets.messages import dpo_row, kto_row, message_of, sft_row, split
from odradek.infra.app.datasets.preferences import WantedEpisode, best_and_worst, each_episode
from odradek.infra.errors import ExportRefused
from odradek.schemas.events import Conversation, ConversationTurn, Pointer


def pointer(name, reward, sample=0):
    return Pointer(
        episode_id=name, sample=sample, topic="rl.episodes.v1", partition=0, offset=sample,
        digest="d", reward=reward,
    )  # fmt: skip


def conversation(name="e1", *, asked="Guess.", replies=("5", "7")):
    turns, base, messages = [], "", [{"role": "user", "content": asked}]
    for number, reply in enumerate(replies):
        turns.append(
            ConversationTurn(
                turn_id=f"{name}/{number}",
                base=base,
                prefix_len=2 * number,
                messages=messages,
                reply={"role": "assistant", "content": reply},
            )
        )
        base, messages = f"{name}/{number}", [{"role": "user", "content": "higher"}]
    return Conversation(episode_id=name, task_id="t1", agent="hilo", sample=0, turns=tuple(turns))


WANTED = WantedEpisode("t1", 0.5)


def test_an_episode_is_its_whole_history():
    """All that was said to its last reply, in order."""
    row = sft_row(conversation(), WANTED)
    assert ["Guess.", "5", "higher", "7"] == [message["content"] for message in row["messages"]]
    assert ("e1", "t1", "hilo", 0.5) == tuple(
        row[name] for name in ("episode_id", "task_id", "agent", "reward")
    )


def test_an_episode_without_a_reply_is_no_row():
    """There is nothing to learn in it."""
    assert sft_row(conversation(replies=()), WANTED) is None
    assert kto_row(conversation(replies=()), WANTED) is None


def test_a_prompt_ends_before_the_first_reply():
    """What the agent was told later is part of the completion, as its tools' results are."""
    row = kto_row(conversation(), WantedEpisode("t1", 1.0, "chosen"))
    assert ["Guess."] == [message["content"] for message in row["prompt"]]
    assert ["5", "higher", "7"] == [message["content"] for message in row["completion"]]
    assert row["label"] is True


def test_a_pair_answers_the_same_prompt():
    """Two samples that were not asked the same thing are no preference."""
    better, worse = WantedEpisode("t1", 1.0, "chosen"), WantedEpisode("t1", 0.0, "rejected")
    row = dpo_row((conversation("a"), better), (conversation("b", replies=("1",)), worse))
    assert (["5", "higher", "7"], ["1"]) == tuple(
        [message["content"] for message in row[name]] for name in ("chosen", "rejected")
    )
    assert ("a", "b", 1.0, 0.0) == tuple(
        row[f"{name}_{what}"] for what in ("episode", "reward") for name in ("chosen", "rejected")
    )
    other = conversation("c", asked="Another thing.")
    assert dpo_row((conversation("a"), better), (other, worse)) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"role": "user", "content": "a"}, ("user", "a")),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}, ("user", "a")),
        ({"role": "assistant", "content": None}, ("assistant", "")),
        ({"content": 5}, ("assistant", "")),
        ("text", ("assistant", "")),
    ],
)  # fmt: skip
def test_any_message_has_a_role_and_a_text(raw, expected):
    """Whatever an agent sent, a row has the same fields."""
    message = message_of(raw)
    assert expected == (message["role"], message["content"])
    assert message.keys() == message_of({}).keys()


def test_calls_of_tools_keep_name_and_arguments():
    """Arguments are text, as OpenAI's API has them; an object is written as JSON."""
    call = {"id": "c1", "function": {"name": "add", "arguments": {"a": 1}}}
    (kept,) = message_of({"role": "assistant", "tool_calls": [call]})["tool_calls"]
    assert {"name": "add", "arguments": '{"a":1}'} == kept["function"]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=5), max_size=6))
def test_best_and_worst_are_those_of_each_group(groups):
    """Against the plain maximum and minimum; groups of equal rewards are counted."""
    named = [
        (f"t{g}", [pointer(f"e{g}-{s}", reward, s) for s, reward in enumerate(rewards)])
        for g, rewards in enumerate(groups)
    ]
    wanted = best_and_worst(named)
    differ = [rewards for rewards in groups if len(set(rewards)) > 1]
    assert len(groups) - len(differ) == wanted.equal
    for role, pick in (("chosen", max), ("rejected", min)):
        assert [pick(rewards) for rewards in differ] == [
            each.reward for each in wanted.episodes.values() if each.role == role
        ]
    pairs = [each.pair for each in wanted.episodes.values()]
    assert all(pairs.count(name) == 2 for name in pairs)
    assert sum(map(len, groups)) == len(each_episode(named).episodes)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(["user", "assistant", "tool", "system"])))
def test_split_loses_nothing(roles):
    """Prompt and completion are the history, and the completion begins with a reply."""
    messages = [{"role": role} for role in roles]
    prompt, completion = split(messages)
    assert messages == prompt + completion
    assert not completion or completion[0]["role"] == "assistant"
    assert "assistant" not in [message["role"] for message in prompt]


def test_every_format_has_a_schema():
    """The table and the Arrow schemas are held together."""
    assert all(len(schema_of(name)) for name in FORMATS)


def test_half_a_file_has_no_name(tmp_path):
    """Until it is closed there is nothing under the name that was asked for."""
    file = JsonLinesFile(tmp_path / "rows.jsonl", "sft")
    file.write({"a": 1})
    assert not (tmp_path / "rows.jsonl").exists()
    file.close()
    assert '{"a":1}\n' == (tmp_path / "rows.jsonl").read_text()
    file = JsonLinesFile(tmp_path / "more.jsonl", "sft")
    file.abort()
    assert ["rows.jsonl"] == [path.name for path in tmp_path.iterdir()]


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path):
    """A name that is taken, and one of no kind."""
    (tmp_path / "there.jsonl").touch()
    with pytest.raises(ExportRefused, match="--overwrite"):
        row_file(tmp_path / "there.jsonl", "sft")
    with pytest.raises(ExportRefused, match=r"\.jsonl or \.parquet"):
        row_file(tmp_path / "rows.csv", "sft")


@pytest.mark.parametrize("overwrite", [True, False])
def test_nothing_is_deleted_before_a_new_file_is_whole(tmp_path, overwrite):
    """A name of no kind, a folder that is no dataset, and a file whose rows never came."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "old.jsonl").write_text("old")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ExportRefused):
            row_file(path, "sft", overwrite=overwrite)
    if overwrite:
        row_file(tmp_path / "old.jsonl", "sft", overwrite=True).abort()
    assert {"notes.txt": "mine", "old.jsonl": "old"} == {
        path.name: path.read_text() for path in tmp_path.iterdir()
    }
