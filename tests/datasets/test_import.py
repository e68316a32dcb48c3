"""Recorded conversations in a log: each once, usable by whoever looks back, and in no batch."""

import asyncio
import json
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.cli import main
from odradek.infra.app.datasets.export import export
from odradek.infra.app.imports import publish
from odradek.infra.app.imports.publish import import_files
from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    Record,
    delete_topics,
    ensure_topics,
    to_end,
)
from odradek.infra.errors import ImportRefused
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, GroupsEvent, Pointer, Reward
from odradek.schemas.topics import CONVERSATIONS, EPISODES, REVISIONS
from odradek.streams.errors import ReplayRefused
from odradek.streams.history import CountSpan, Selection
from odradek.streams.history.imports import choose_imported
from odradek.streams.stages.grouper import GROUP
from odradek.streams.verify.report import verify
from odradek.trainer.feed.readers.batch_reader import LogGroups
from odradek.trainer.settings import TrainerSettings
from tests.datasets.test_recordings import CHAT, PLACE, ROLLOUT, SPANS, TRACED, TRL
from tests.support.schemas.event_builders import written
from tests.support.streams.stage_drivers import Crashed
from tests.support.trainer.trained_log import TrainedLog, append

pytestmark = pytest.mark.broker
POINTS = ("after_begin", "after_produce_before_offsets", "after_commit")


def prefixed(broker):
    """A log of its own."""
    return BusSettings(
        bootstrap_servers=broker, topic_prefix=f"i{uuid4().hex[:8]}.", topic_partitions=3
    )


def json_lines(path, records):
    """A file of records."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


class Story:
    """A log with imports that died, and what each of them said."""

    def __init__(self, broker, folder):
        self.bus, self.source = prefixed(broker), prefixed(broker)
        self.rows = folder / "rows.parquet"
        self.files = [
            json_lines(folder / "chat.jsonl", [CHAT, TRL, TRL, TRL | {"reward": 0.0}]),
            json_lines(folder / "results.jsonl", [ROLLOUT, TRACED | {"reward": 0.25}]),
            json_lines(folder / "spans.jsonl", SPANS),
            self.rows,
        ]
        self.said = []

    async def happen(self):
        trained = TrainedLog(self.source, TrainerSettings(run="main"))
        await trained.publish(1, seed=2)
        await export(self.source, Selection(), "episodes", self.rows)
        await ensure_topics(self.bus)
        self.said.append(await import_files(self.bus, self.files, dry_run=True))
        for point in POINTS:
            with pytest.raises(Crashed):
                await import_files(self.bus, self.files, at=self._dying(point))
        self.said.append(await import_files(self.bus, self.files))
        self.said.append(await import_files(self.bus, [*reversed(self.files)]))

    def _dying(self, point):
        passed = []

        def at(name):
            passed.append(name)
            if passed.count(point) == 2:
                raise Crashed(point)

        return at


@pytest.fixture(scope="module")
def story(broker, tmp_path_factory):
    """Three imports that died in their second transaction, one that ended, and one more."""
    story = Story(broker, tmp_path_factory.mktemp("imports"))
    patch = pytest.MonkeyPatch()
    patch.setattr(publish, "AT_ONCE", 2)
    asyncio.run(story.happen())
    patch.undo()
    yield story
    for bus in (story.bus, story.source):
        asyncio.run(delete_topics(bus))


async def events(bus, topic, kind):
    """All events of a topic with their records."""
    return [(record, codec.decode(record.value, kind)) async for record in to_end(bus, topic.name)]


async def test_an_import_that_died_goes_on_and_adds_nothing_twice(story):
    """Wherever it died: 11 episodes are there once, and each with its words where it has some."""
    dry, last, again = story.said
    assert (11, 0, True) == (dry.episodes, dry.there, dry.dry)
    assert (11, 0) == (last.episodes + last.there, again.episodes)
    assert 0 < last.episodes < 11 == again.there
    episodes = await events(story.bus, EPISODES, Episode)
    words = [record.key async for record in to_end(story.bus, CONVERSATIONS.name)]
    ids = [episode.episode_id for _, episode in episodes]
    assert (11, 11, 7) == (len(ids), len({*ids}), len({*words}))
    assert len(words) == len({*words})
    spoken = {e.episode_id for _, e in episodes if e.imported_from != "odradek"}
    assert spoken == {*words}


async def test_an_import_passes_over_what_is_no_event(bus, tmp_path, monkeypatch):
    """Whatever the log holds beside episodes: it was written by somebody else."""
    deep = b"[" * 5000 + b"]" * 5000

    async def held(_bus, topic):
        for at, value in enumerate([None, b"", b"\xff", b"[]", b'{"episode_id":5}', deep]):
            yield Record(topic, 0, at, None, value)

    await ensure_topics(bus, [(EPISODES.name, EPISODES), (CONVERSATIONS.name, CONVERSATIONS)])
    monkeypatch.setattr(publish, "to_end", held)
    result = await import_files(bus, [json_lines(tmp_path / "chat.jsonl", [CHAT])], dry_run=True)
    assert (1, 0) == (result.episodes, result.there)


async def test_verify_counts_them_apart_and_stays_clean(story):
    """No sum has them, and none is missing; a late reward for one is of a known episode."""
    report = await verify(story.bus)
    assert (True, [], 11) == (report.closed, report.lines(), report.imported)
    assert 0 == report.conservation["samples"] == report.conservation["opened"]


async def test_the_grouper_makes_no_batch_of_them(story):
    """Over the very records that stand on the topic: neither a batch nor a dead letter."""
    records = [record for record, _ in await events(story.bus, EPISODES, GroupsEvent)]
    for partition in range(3):
        assert [] == written(GROUP, [r for r in records if r.partition == partition])


async def test_a_trainer_refuses_them_where_a_batch_names_them(story):
    """Though somebody wrote such a batch by hand."""
    pairs = [pair for pair in await events(story.bus, EPISODES, Episode) if pair[1].sequences]
    pointers = tuple(
        Pointer(
            episode_id=episode.episode_id, sample=n, topic=record.topic, reward=float(n),
            partition=record.partition, offset=record.offset, digest=codec.digest(record.value),
        )
        for n, (record, episode) in enumerate(pairs[:2])
    )  # fmt: skip
    reader = LogGroups(None, story.bus, "rl.batches.v1", ends=True)
    batch = Batch(task_id="t", group_size=2, episodes=pointers)
    group = await reader._follow(5, batch)
    for episodes in reader._episodes.values():
        await episodes.close()
    assert ((), ["imported"] * 2) == (group.episodes, [each.reason for each in group.refused])


async def test_exported_rows_are_those_that_were_imported(story, tmp_path):
    """Of the log that they come from: all columns but their places."""
    out = tmp_path / "again.parquet"
    result = await export(story.bus, Selection(agents=("hilo",)), "episodes", out, imported=True)
    rows, again = (
        sorted(pq.read_table(path).to_pylist(), key=lambda row: row["episode_id"])
        for path in (story.rows, out)
    )
    assert 4 == result.rows == len(rows)
    assert [{k: v for k, v in row.items() if k not in PLACE} for row in rows] == [
        {k: v for k, v in row.items() if k not in PLACE} for row in again
    ]


async def test_a_judge_can_reward_them_later(story):
    """The newest late reward counts; without any, an episode has none, and no filter takes it."""
    choice = await choose_imported(story.bus, Selection(agents=("imported",)))
    bare = [p for batch in choice.taken for p in batch.pointers if p.reward != p.reward]
    assert 3 == len(bare)
    appender = await KafkaAppender.connect(story.bus)
    verdict = Reward(episode_id=bare[0].episode_id, component="reward", value=0.75, source="judge")
    await append(appender, REVISIONS.name, verdict.episode_id, verdict)
    await appender.aclose()
    after = await choose_imported(story.bus, Selection(agents=("imported",)))
    rewards = {p.episode_id: p.reward for batch in after.taken for p in batch.pointers}
    assert (0.75, 0) == (
        rewards[verdict.episode_id],
        (await verify(story.bus)).revisions["unknown"],
    )
    with pytest.raises(ReplayRefused, match="in no batch"):
        await choose_imported(story.bus, Selection(offsets=CountSpan(0, 1)))


def test_verbs_that_look_back_know_them(story, tmp_path, monkeypatch):
    """`find`, `show`, `query` and `export`, and `import` itself, as a person calls them."""
    for name, value in kafka(story.bus).items():
        monkeypatch.setenv(name, value)

    def call(*words):
        called = CliRunner().invoke(main, words)
        assert not called.exit_code, called.output
        return called.output

    found = [json.loads(line) for line in
             call("find", "2 + 2", "--imported", "--agent", "sums", "--json").splitlines()]  # fmt: skip
    assert 2 == len({one["episode_id"] for one in found})
    assert '"imported_from":"verifiers"' in call(
        "show", "episode", found[0]["episode_id"], "--json"
    )
    counted = call("query", "--imported", "--csv",
                   "select imported_from, count(*) as n from episodes group by all order by 1")  # fmt: skip
    assert "imported_from,n\nagent-lightning,1\nchat,4\nodradek,4\nverifiers,2\n" == counted
    out = tmp_path / "pairs.jsonl"
    call("export", "data", "dpo", str(out), "--imported", "--agent", "sums")
    (pair,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (1.0, 0.25) == (pair["chosen_reward"], pair["rejected_reward"])
    assert (
        "0 episodes are imported (chat); 0 of them have tokens and log probabilities\n4 were"
        in (call("import", str(story.files[0])))
    )


async def test_a_bad_line_ends_an_import_before_it_begins(story, tmp_path):
    """Unless it is to be left out: then it is counted and named."""
    path = json_lines(tmp_path / "half.jsonl", [{"messages": []}, TRL | {"reward": 9.0}])
    with pytest.raises(ImportRefused, match=r"half\.jsonl, line 1: no message has the role"):
        await import_files(story.bus, [path])
    dry = await import_files(story.bus, [path], skip_bad=True, dry_run=True)
    assert (1, 1, 1) == (dry.episodes, dry.bad, dry.lines[0].line)
