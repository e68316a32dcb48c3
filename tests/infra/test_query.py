"""SQL over topics: rows are the records, and a query gets nowhere else."""

import asyncio
import json
import sys
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.app.cli.look import query
from odradek.infra.app.queries import QueryDatabase
from odradek.infra.app.queries.rows import RowBatch
from odradek.infra.app.queries.selection import MeantRows
from odradek.infra.app.queries.tables import TABLES, LetterHead, event_reader
from odradek.infra.bus import BusSettings, KafkaAppender, Record, delete_topics, ensure_topics
from odradek.infra.errors import QueryRefused
from odradek.schemas import codec, topics
from odradek.schemas.events import (
    Batch,
    BatchUse,
    Conversation,
    Episode,
    Outcome,
    Pointer,
    Reward,
    Step,
)
from odradek.streams.history.batches import BatchChoice, TakenBatch
from tests.support.schemas.event_builders import turn
from tests.support.schemas.event_samples import SAMPLES
from tests.support.trainer.trained_log import append


def event_of(table, record):
    """The event of a record, which is of the table's type."""
    event = event_reader(table.topic)(record)
    assert isinstance(event, table.kind)
    return event


def asked(folder, sql, table="", records=()):
    """The rows of a query, as dictionaries, with records in one table."""
    database = QueryDatabase(folder)
    try:
        database.begin(database.plan(sql))
        if table:
            batch = RowBatch(TABLES[table])
            for record in records:
                batch.add(record, event_of(TABLES[table], record))
            database.add(TABLES[table], batch.take())
        answer = database.ask(sql)
        return [dict(zip(answer.names, row, strict=True)) for row in answer.rows]
    finally:
        database.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Empty tables."""
    database = QueryDatabase(tmp_path_factory.mktemp("query"))
    yield database
    database.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A row in each table that has events, and no more to come."""
    database = QueryDatabase(tmp_path_factory.mktemp("full"))
    database.begin(TABLES.values())
    for table in TABLES.values():
        if table.name != "dead_letters":
            batch = RowBatch(table)
            record = sample_of(table)
            batch.add(record, event_of(table, record))
            database.add(table, batch.take())
    list(database.ask("from turns").rows)
    yield database
    database.close()


def sample_of(table):
    """The record of the sample of a table's events."""
    return record_of(SAMPLES[table.kind.__struct_config__.tag], table.topic)


def record_of(event, topic, *, offset=5, key="k"):
    """The record of an event."""
    return Record(topic.name, 2, offset, key, codec.encode(event), (), 1_700_000_000.25)


@pytest.mark.parametrize(
    "sql",
    [
        "copy turns to 'rows.csv'",
        "copy (select 1) to 'rows.parquet'",
        "copy turns from 'rows.csv'",
        "export database 'rows'",
        "import database 'rows'",
        "attach 'other.duckdb'",
        "attach 'postgres:dbname=x' as other (type postgres)",
        "detach rows",
        "install httpfs",
        "force install httpfs",
        "load httpfs",
        "pragma database_list",
        "pragma enable_profiling",
        "set threads = 1",
        "set lock_configuration = false",
        "reset memory_limit",
        "create table mine as select 1",
        "create temp table mine as select 1",
        "create macro mine() as 1",
        "create secret (type s3, key_id 'a', secret 'b')",
        "insert into turns (agent) values ('a')",
        "update turns set agent = ''",
        "delete from turns",
        "drop table turns",
        "truncate turns",
        "call pragma_version()",
        "prepare mine as select 1",
        "checkpoint",
        "begin",
        "vacuum",
        "explain analyze select 1",
        "select 1; select 2",
        "select 1; copy turns to 'rows.csv'",
        "",
        "-- nothing",
    ],
)
def test_anything_but_one_select_is_refused(database, sql):
    """It is not even held against the tables."""
    with pytest.raises(QueryRefused, match="select"):
        database.plan(sql)


OUTSIDE = [
    "from '{file}'",
    "from 'http://127.0.0.1:9/rows.csv'",
    "from 'https://127.0.0.1:9/rows.parquet'",
    "from 's3://bucket/rows.parquet'",
    "from read_csv('{file}')",
    "from read_csv_auto('{file}')",
    "from read_parquet('{file}')",
    "from parquet_metadata('{file}')",
    "from read_json('{file}')",
    "from read_ndjson_objects('{file}')",
    "from read_text('{file}')",
    "from read_blob('{file}')",
    "from sniff_csv('{file}')",
    "from glob('{folder}/*')",
    "from read_text('http://127.0.0.1:9/')",
    "from duckdb_extensions()",
    "from sqlite_scan('{file}', 't')",
    "from enable_logging(storage = 'file', storage_path = '{folder}/log')",
    "from enable_profiling(format = 'json', save_location = '{folder}/profile')",
    "select getenv('HOME')",
    "with a as (from read_text('{file}')) from a",
    "select (select content from read_text('{file}'))",
    "from query('from read_text(''{file}'')')",
    "from json_execute_serialized_sql(json_serialize_sql('from read_text(''{file}'')'))",
    "from outside",
]
"""Selects that would leave; `outside` is a variable of Python's."""
STATEMENTS = [
    "copy (select 1) to '{folder}/out.csv'",
    "export database '{folder}/out'",
    "attach '{folder}/out.duckdb'",
    "install httpfs",
    "load httpfs",
    "set lock_configuration = false",
    "set enable_external_access = true",
    "create table mine as select 1",
    "insert into turns (agent) values ('a')",
    "create persistent secret (type s3, key_id 'a', secret 'b')",
]


@pytest.mark.parametrize("sql", OUTSIDE)
def test_a_select_has_neither_files_nor_network_nor_variables(database, full, tmp_path, sql):
    """It is refused, and nothing is written."""
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    outside = [1]
    with pytest.raises(QueryRefused):
        database.plan(sql.format(file=file, folder=tmp_path))
        list(full.answer(sql.format(file=file, folder=tmp_path)).rows)
    assert ["rows.csv"] == [path.name for path in tmp_path.iterdir()]
    assert outside


@pytest.mark.parametrize("sql", OUTSIDE + STATEMENTS)
def test_the_connection_that_asks_refuses_by_itself(full, tmp_path, sql):
    """Though nothing was planned, nothing is read, written, loaded or set."""
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(QueryRefused):  # at once, or with the first row
        list(full.answer(sql.format(file=file, folder=tmp_path)).rows)
    assert ["rows.csv"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("from turn", "there is no table 'turn' (did you mean 'turns'?); there are tasks, groups"),
        ("from nowhere.turns", "Catalog Error"),
        ("from turns, TURNES", "did you mean 'turns'"),
        ("select nope from turns", "LINE 1: select nope from turns\n               ^"),
        ("from query('from turns')", "query(…) hides what it reads"),
        ("selec 1", 'syntax error at or near "selec"'),
        ("select offset from turns", 'write "offset" in double quotes, or turns.offset'),
        ("select sum(agent) from turns", "Binder Error"),
    ],
)
def test_a_mistake_is_named_before_a_topic_is_read(database, sql, said):
    """In DuckDB's words where it knows better."""
    with pytest.raises(QueryRefused) as refused:
        database.plan(sql)
    assert said in str(refused.value)


def test_a_mistake_that_only_rows_show_is_named_as_well(full):
    """While the answer is fetched."""
    with pytest.raises(QueryRefused, match="Conversion Error"):
        list(full.answer("select agent::integer from turns").rows)


@pytest.mark.parametrize("missing", ["duckdb", "pyarrow"])
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, missing):
    """In one line that can be copied."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(QueryRefused, match=rf"needs {missing}: pip install 'odradek\[query\]'"):
        QueryDatabase(tmp_path)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("select 1", []),
        ("from Turns", ["turns"]),
        ("with mine as (select 1) from MINE", []),
        ("from episodes join turns using (episode_id)", ["turns", "episodes"]),
        ("select exists (from steps) from main.dead_letters", ["steps", "dead_letters"]),
        ("with turns as (from tasks) select (select 1 from (from turns))", ["tasks", "turns"]),
        ("describe policies", ["policies"]),
    ],
)
def test_a_query_reads_the_tables_that_it_names(database, sql, tables):
    """And no other, however deep they are named."""
    assert tables == [table.name for table in database.plan(sql)]


@pytest.mark.parametrize("name", [name for name in TABLES if name != "dead_letters"])
def test_a_row_is_its_record(full, name):
    """Each number and text of the event has a column, and `record` is all of it."""
    table = TABLES[name]
    record = sample_of(table)
    event = event_of(table, record)
    answer = full.answer(f"from {name}")
    (row,) = [dict(zip(answer.names, each, strict=True)) for each in answer.rows]
    assert [column.name for column in table.columns] == list(row)
    assert (f"{table.topic.name}/2/5", 2, 5, "2023-11-14T22:13:20.250000") == (
        row["place"], row["partition"], row["offset"], row["timestamp"].isoformat(),
    )  # fmt: skip
    assert [column.value(event) for column in table.fields] == [
        row[column.name] for column in table.fields
    ]
    assert json.loads(record.value) == json.loads(row["record"])


def test_a_dead_letter_is_its_reason_and_its_origin(tmp_path):
    """Its bytes need be no JSON."""
    headers = tuple(
        (f"dlq-{name}", value)
        for name, value in {"reason": b"bad_json", "topic": b"rl.turns.v1", "offset": b"7"}.items()
    )
    letter = Record("rl.dlq.v1", 0, 1, "e1", b"\xff no JSON", headers, 1.0)
    sql = "select key, reason, origin_topic, origin_offset, record from dead_letters"
    assert [("e1", "bad_json", "rl.turns.v1", "7", None)] == [
        tuple(row.values()) for row in asked(tmp_path, sql, "dead_letters", [letter])
    ]
    assert issubclass(TABLES["dead_letters"].kind, LetterHead)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(rows=st.lists(st.tuples(texts, st.floats(allow_nan=False, allow_infinity=False),
                               st.none() | st.floats(-1, 1), st.sampled_from(Outcome)),
                     max_size=4))  # fmt: skip
def test_any_values_come_into_a_row(rows):
    """Numbers to the last bit, texts to the last character."""
    batch = RowBatch(TABLES["episodes"])
    for n, (text, at, reward, outcome) in enumerate(rows):
        episode = Episode(episode_id=f"e{n}", task_id="t", agent=text, sample=0, group_size=1,
                          outcome=outcome, reward=reward, opened_at=at)  # fmt: skip
        record = record_of(episode, topics.EPISODES, offset=n)
        batch.add(record, event_of(TABLES["episodes"], record))
    found = batch.take().select(["agent", "opened_at", "reward", "outcome"]).to_pylist()
    assert rows == [tuple(row.values()) for row in found]


def test_columns_of_one_name_are_told_apart(tmp_path):
    """So a row can be an object."""
    assert [{"a": 1, "a_2": 2, "b": 3}] == asked(tmp_path, "select 1 as a, 2 as a, 3 as b")


def test_rows_are_handed_on_by_size(tmp_path):
    """Memory holds a batch of them: by number, or by bytes."""
    batch = RowBatch(TABLES["turns"])
    event = turn()
    record = msgspec.structs.replace(record_of(event, topics.TURNS), value=b"x" * 5_000_000)
    full = []
    for _ in range(2):
        full.append(batch.is_full)
        batch.add(record, event)
    assert ([False, False], True) == (full, batch.is_full)
    assert (2, 0, False) == (batch.take().num_rows, batch.rows, batch.is_full)


ids = st.sampled_from(["a", "b", "c"])


@given(batches=st.lists(st.tuples(ids, st.lists(ids, max_size=2)), max_size=3), name=ids,
       source=st.sampled_from(["rl.batches.v1", "again"]), offset=st.integers(0, 3))  # fmt: skip
def test_filters_take_what_belongs_to_a_batch(batches, name, source, offset):
    """By episode, task, offset or use, against plain words; policies are not filtered."""
    taken = tuple(
        TakenBatch(at, "", len(episodes), task, tuple(
            Pointer(episode_id=episode, sample=0, topic="rl.episodes.v1", partition=0, offset=at,
                    digest="", reward=0.0)
            for episode in episodes
        ))
        for at, (task, episodes) in enumerate(batches)
    )  # fmt: skip
    meant = MeantRows.of(BatchChoice(source, 9, taken))
    episodes = {episode for _, episodes in batches for episode in episodes}
    tasks = {task for task, _ in batches}
    step = Step(run="r", incarnation=1, step=1, position=1, used=(BatchUse(offset=offset),))
    batch = Batch(task_id=name, group_size=1)
    cases = [
        ("rewards", Reward(episode_id=name, component="c", value=1, source="s"), name in episodes),
        ("groups", batch, name in tasks),
        ("batches", batch, source == "rl.batches.v1" and offset < len(batches)),
        ("steps", step, source == "rl.batches.v1" and offset < len(batches)),
        ("dead_letters", None, name in episodes | tasks),
        ("policies", None, True),
    ]
    for table, event, expected in cases:
        record = Record("rl.batches.v1", 0, offset, name, b"")
        assert expected == meant.takes(TABLES[table], record, event), table


@pytest.fixture(scope="module")
def log(broker):
    """Three tasks with an episode each, one conversation that is none, and two topics missing."""
    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"q{uuid4().hex[:8]}.",
                      topic_partitions=3)  # fmt: skip
    asyncio.run(_written(bus))
    yield bus
    asyncio.run(delete_topics(bus))


async def _written(bus):
    there = [topics.EPISODES, topics.BATCHES, topics.CONVERSATIONS, topics.STEPS]
    await ensure_topics(bus, [(row.name, row) for row in there])
    appender = await KafkaAppender.connect(bus)
    for n in range(3):
        name, task = f"e{n}", f"t{n}"
        episode = Episode(
            episode_id=name, task_id=task, agent="hilo\x1b[2J", sample=0, group_size=1
        )
        words = Conversation(episode_id=name, task_id=task, agent="hilo", sample=0)
        await append(appender, topics.CONVERSATIONS.name, name, words)
        at = await append(appender, topics.EPISODES.name, task, episode)
        pointer = Pointer(
            episode_id=name, sample=0, topic=topics.EPISODES.name, partition=at.partition,
            offset=at.offset, digest=codec.digest(codec.encode(episode)), reward=float(n),
        )  # fmt: skip
        batch = Batch(task_id=task, group_size=1, episodes=(pointer,))
        await append(appender, topics.BATCHES.name, task, batch)
        step = Step(run="main", incarnation=1, step=n + 1, position=n + 1, metrics={"loss": n / 2},
                    used=(BatchUse(offset=n, rows=1),))  # fmt: skip
        await append(appender, topics.STEPS.name, "main", step)
    await appender.append(topics.CONVERSATIONS.name, key="e9", value=b"no JSON")
    await appender.aclose()


@pytest.mark.broker
def test_people_ask_the_topics(log, monkeypatch):
    """As a table, as JSON lines and as CSV, with the filters of replay."""
    for name, value in kafka(log).items():
        monkeypatch.setenv(name, value)

    def call(*words):
        return CliRunner().invoke(query.command, words)

    def rows(*words):
        return [json.loads(line) for line in call(*words, "--json").stdout.splitlines()]

    shown = call("select episode_id, agent from episodes order by 1").stdout
    assert [r"e0", r"hilo\x1b[2J"] == shown.splitlines()[1].split()
    assert (
        "episode_id,n\ne1,1\n"
        == call(
            "select episode_id, sample + 1 as n from episodes where episode_id = 'e1'", "--csv"
        ).stdout
    )
    assert [{"loss": 0.0}, {"loss": 0.5}, {"loss": 1.0}] == rows(
        "select record->'metrics'->'loss' as loss from steps order by step"
    )
    for filters, expected in [
        ((), ["e0", "e1", "e2"]),
        (("--steps", "2:4"), ["e1", "e2"]),
        (("--batches", "0:1"), ["e0"]),
        (("--reward", "1:1"), ["e1"]),
        (("--task", "t2"), ["e2"]),
    ]:
        (found,) = rows(
            "select (select string_agg(episode_id, ' ' order by episode_id) from episodes) as e, "
            "(select string_agg(episode_id, ' ' order by episode_id) from conversations) as c, "
            "(select count(*) from batches) as b, (select count(*) from steps) as s",
            *filters,
        )
        names, n = " ".join(expected), len(expected)
        assert {"e": names, "c": names, "b": n, "s": n} == found, filters
    spoiled = call("select count(*) from conversations")
    assert "1 records of rl.conversations.v1 hold no event of it" in spoiled.stderr


@pytest.mark.broker
def test_topics_that_are_not_named_may_be_missing(log, monkeypatch):
    """They are not read. A missing one that is named is one line that says what to do."""
    for name, value in kafka(log).items():
        monkeypatch.setenv(name, value)
    answered = CliRunner().invoke(query.command, ["select count(*) as n from batches", "--csv"])
    assert (0, "n\n3\n") == (answered.exit_code, answered.stdout)
    refused = CliRunner().invoke(query.command, ["from turns"])
    assert "lacks the topic rl.turns.v1: run `odradek topics apply`" in str(refused.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a select"),
        (["select 1", "--json", "--csv"], "exclude each other"),
        (["--tables", "--json"], '"table":"turns"'),
        (["select 1 as one"], "one\n  1"),
        (["from range(300)"], "the first 200 rows"),
    ],
)
def test_a_query_without_topics_needs_no_kafka(words, said):
    """Nor does a mistake, nor the list of tables."""
    assert said in CliRunner().invoke(query.command, words).output
