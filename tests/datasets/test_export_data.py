"""Chosen episodes of a log as files, read back by the tools that they are for."""

import json

import datasets
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.cli import main
from odradek.infra.app.datasets.export import export
from odradek.infra.bus import KafkaAppender
from odradek.schemas.events import Conversation, ConversationTurn
from odradek.schemas.topics import CONVERSATIONS
from odradek.streams.history import CountSpan, RewardSpan, Selection
from odradek.trainer.feed.rows import arrays_of
from odradek.trainer.settings import TrainerSettings
from tests.support.trainer.trained_log import TrainedLog, append

pytestmark = pytest.mark.broker
ALL = Selection()


def conversation_of(episode) -> Conversation:
    """What the episode's agent was asked, and what it said."""
    turn = ConversationTurn(
        turn_id="w/0",
        messages=[{"role": "user", "content": f"About {episode.task_id}?"}],
        reply={"role": "assistant", "content": f"{episode.sample} it is"},
    )
    return Conversation(
        episode_id=episode.episode_id, task_id=episode.task_id, agent=episode.agent,
        sample=episode.sample, turns=(turn,),
    )  # fmt: skip


@pytest.fixture
async def log(bus):
    """Six groups of four, with their conversations."""
    log = TrainedLog(bus, TrainerSettings(run="main"))
    await log.publish(6)
    appender = await KafkaAppender.connect(bus)
    for group in log.offset_of.values():
        for _, episode in group.episodes:
            conversation = conversation_of(episode)
            await append(appender, CONVERSATIONS.name, episode.episode_id, conversation)
    await appender.aclose()
    return log


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_good_episodes_are_rows_of_messages(bus, log, tmp_path):
    """Those that the filters take, with what was asked and said."""
    good = Selection(reward=RewardSpan.parse("1:"))
    result = await export(bus, good, "sft", tmp_path / "sft.jsonl")
    wanted = {
        pointer.episode_id
        for group in log.offset_of.values()
        for pointer in group.batch.episodes
        if pointer.reward == 1.0
    }
    rows = lines(tmp_path / "sft.jsonl")
    from trl.data_utils import is_conversational  # seconds, which only who runs this need pay

    assert (len(wanted), wanted) == (result.rows, {row["episode_id"] for row in rows})
    assert all(
        f"About {row['task_id']}?" == row["messages"][0]["content"] and is_conversational(row)
        for row in rows
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ""])
async def test_pairs_are_the_best_and_worst_of_each_group(bus, log, tmp_path, suffix):
    """In each kind of file, the same rows; TRL knows their form."""
    out = tmp_path / f"pairs{suffix}"
    result = await export(bus, ALL, "dpo", out)
    if suffix == ".jsonl":
        rows = lines(out)
    elif suffix:
        rows = pq.read_table(out).to_pylist()
    else:
        rows = datasets.load_from_disk(str(out)).to_list()
    differ = [g for g in log.offset_of.values() if len({p.reward for p in g.batch.episodes}) > 1]
    assert len(differ) == len(rows) == result.rows > 0
    assert all((1.0, 0.0) == (row["chosen_reward"], row["rejected_reward"]) for row in rows)
    from trl.data_utils import is_conversational

    assert all(is_conversational(row) for row in rows)
    equal = len(log.offset_of) - len(differ)
    assert result.left_out.get("groups whose rewards are equal", 0) == equal
    assert [out.name] == [path.name for path in tmp_path.iterdir()]


async def test_unpaired_preferences_are_the_same_two(bus, log, tmp_path):
    """As many with a label as without."""
    await export(bus, ALL, "kto", tmp_path / "kto.jsonl")
    labels = [row["label"] for row in lines(tmp_path / "kto.jsonl")]
    assert labels.count(True) == labels.count(False) > 0


async def test_tokens_are_those_of_the_log(bus, log, tmp_path):
    """Ids, log probabilities, versions and the place of each record, in an Arrow file."""
    span = Selection(offsets=CountSpan(1, 3))
    await export(bus, span, "episodes", tmp_path / "tokens.parquet")
    rows = pq.read_table(tmp_path / "tokens.parquet").to_pylist()
    pairs = [pair for offset in (1, 2) for pair in log.offset_of[offset].episodes]
    assert len(pairs) == len(rows)
    for row, (pointer, episode) in zip(rows, pairs, strict=True):
        assert (pointer.partition, pointer.offset, pointer.digest) == (
            row["partition"], row["offset"], row["digest"],
        )  # fmt: skip
        for held, sequence in zip(row["sequences"], episode.sequences, strict=True):
            ids, mask, logprobs = arrays_of(sequence)
            assert ids.tolist() == held["ids"]
            assert logprobs[mask].tolist() == held["logprobs"]
            assert [span.start for span in sequence.spans] == [s["start"] for s in held["spans"]]


async def test_words_that_retention_has_deleted_are_counted(bus, log, tmp_path):
    """An episode outlives its conversation; the rows that can be made are made."""
    later = TrainedLog(bus, TrainerSettings(run="main"))
    await later.publish(1, first=100)
    result = await export(bus, ALL, "sft", tmp_path / "sft.jsonl")
    assert {"episodes whose conversation retention has deleted": 4} == result.left_out
    assert 24 == result.rows


def test_the_command_writes_and_says_what(bus, log, tmp_path, monkeypatch):
    """As a person calls it."""
    for name, value in kafka(bus).items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "sft.jsonl"
    said = CliRunner().invoke(main, ["export", "data", "sft", str(out), "--batches", "0:2"])
    assert (0, True) == (said.exit_code, f"8 rows of 2 batches are in {out}" in said.output)
