"""The verbs for people: tasks, tail and token."""

import json
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from odradek.agents import Rollout
from odradek.agents.rollout import RolloutTask
from odradek.agents.runners import ProgramRunner
from odradek.infra.app.cli.look import tail
from odradek.infra.app.cli.start import tasks, token
from odradek.infra.app.project.tasks import epochs, read
from odradek.infra.bus import BusSettings, KafkaAppender, Record, ensure_topics
from odradek.infra.client import records
from odradek.infra.errors import ProjectError
from odradek.infra.runtime import episode_tokens
from odradek.schemas import codec
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import Batch, Completion, Pointer, Task, Turn

LINE = '{"item": "a", "agent": "hilo", "input": {"secret": 3}, "group_size": 4}'


def lines(folder: Path, *texts: str) -> Path:
    """A file of JSON lines."""
    path = folder / "tasks.jsonl"
    path.write_text("\n".join(texts) + "\n")
    return path


def test_tasks_are_read_with_their_input(tmp_path: Path) -> None:
    """A line becomes a task."""
    (task,) = read(lines(tmp_path, LINE, ""))

    assert (task.agent, task.group_size, bytes(task.input)) == ("hilo", 4, b'{"secret": 3}')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("3", "line 2: a task is a JSON object"),
        ('{"agent": "a", "group_size": 0}', "line 2: .*>= 1.*group_size"),
        ('{"group_size": 1}', "line 2: .*missing required field `agent`"),
        (
            '{"agent": "a", "group_sise": 3}',
            "line 2: a task has no 'group_sise'; did you mean 'group_size'",
        ),
        (
            '{"agent": "a", "timeouts": {"run_s": 3}}',
            "line 2: a task's table of timeouts has no 'run_s'; did you mean 'attempt_s'",
        ),
        ("[" * 100_000, "line 2 is no JSON"),
        *[
            (f'{{"agent": "a", {field}}}', "line 2: a number is not finite")
            for field in (
                '"failure_reward": NaN',
                '"failure_reward": 1e400',
                '"input": [-Infinity]',
                '"rewards": {"c": 1e999}',
                '"input": {"a": {"b": NaN}}',
            )
        ],
        *[
            (f'{{"agent": "a", {field}}}', "line 2: a text holds half")
            for field in (r'"input": "\ud800"', r'"input": {"\udfff": 1}', r'"item": "a\udc00b"')
        ],
        (
            '{"agent": "a", "rewards": {"c": -0.5}}',
            'line 2: rewards.c .* Add "failure_reward": -0.5',
        ),
        ('{"agent": "a", "rewards": {"": 1}}', "line 2: rewards names a component"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """The first bad line ends the reading, with its number."""
    with pytest.raises(ProjectError, match=message):
        read(lines(tmp_path, LINE, line))


def test_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    """No tasks is not what anybody means."""
    with pytest.raises(ProjectError, match="no tasks"):
        read(lines(tmp_path, ""))


def test_kept_ids_must_be_there_and_differ(tmp_path: Path) -> None:
    """--keep-ids wants an id in every line, each once."""
    with pytest.raises(ProjectError, match="needs a task_id"):
        read(lines(tmp_path, LINE), keep_ids=True)
    twice = '{"task_id": "t", "agent": "a"}'
    with pytest.raises(ProjectError, match="stands in line 1 already"):
        read(lines(tmp_path, twice, twice), keep_ids=True)


def test_epochs_make_fresh_ids(tmp_path: Path) -> None:
    """Every epoch and every line gets an id of its own, equal lines too."""
    found = epochs(read(lines(tmp_path, LINE, LINE)), 3)

    assert len({task.task_id for task in found}) == 6
    assert {task.item for task in found} == {"a"}


def point_at(bus: BusSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the verbs use this test's bus."""
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", bus.bootstrap_servers)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", bus.topic_prefix)
    monkeypatch.setenv("ODRADEK_TOPIC_PARTITIONS", "3")


@pytest.mark.broker
async def test_published_tasks_stand_on_the_topic(
    bus: BusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`odradek tasks publish` writes each line once per epoch; a bad file writes nothing."""
    await ensure_topics(bus)
    point_at(bus, monkeypatch)
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(f"{LINE}\n{LINE}\n")
    bad.write_text(f"{LINE}\n{{\n")

    answer = await invoke(tasks.command, ["publish", str(good), "--epochs", "2", "--json"])
    refused = await invoke(tasks.command, ["publish", str(bad)])

    found = [
        codec.decode(record.value, Task)
        async for record in records("rl.tasks.v1", since="beginning", follow=False, bus=bus)
    ]
    assert sorted(task.task_id for task in found) == sorted(json.loads(answer.stdout)["task_ids"])
    assert len(found) == 4
    assert isinstance(refused.exception, ProjectError)


@pytest.mark.broker
async def test_tasks_are_published_by_how_often_they_were_solved(
    bus: BusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--solved` reads the batches on the log; where it leaves nothing it says so."""
    await ensure_topics(bus)
    point_at(bus, monkeypatch)
    appender = await KafkaAppender.connect(bus, linger_ms=0)
    for item, rewards in (("a", [1.0, 1.0]), ("b", [1.0, 0.0])):
        pointers = tuple(
            Pointer(episode_id=f"{item}{n}", sample=n, topic="t", partition=0, offset=n, digest="d",
                    reward=reward)
            for n, reward in enumerate(rewards)
        )  # fmt: skip
        task = json.loads(LINE)
        batch = Batch(task_id=item, agent=task["agent"], item=item, group_size=2, episodes=pointers)
        await appender.append(
            "rl.batches.v1", key=item, value=codec.encode(batch),
            headers=codec.headers(batch, source="/x", subject=item, event_id=item),
        )  # fmt: skip
    await appender.aclose()
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(json.loads(LINE) | {"item": i}) + "\n" for i in "abc"))
    answer = await invoke(tasks.command, ["publish", str(file), "--solved", "0.1:0.9", "--json"])
    assert 2 == json.loads(answer.stdout)["published"]
    file.write_text(json.dumps(json.loads(LINE) | {"item": "a"}) + "\n")
    refused = await invoke(tasks.command, ["publish", str(file), "--solved", "0:0.5"])
    assert isinstance(refused.exception, ProjectError)
    assert "--solved" in str(refused.exception)


async def invoke(command, args):
    """Run a verb in a thread, as it starts an event loop of its own."""
    import asyncio

    return await asyncio.to_thread(CliRunner().invoke, command, args)


@pytest.mark.broker
async def test_tail_filters_by_key_and_header(
    bus: BusSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`odradek tail` prints what fits, from the offset given."""
    await ensure_topics(bus)
    point_at(bus, monkeypatch)
    appender = await KafkaAppender.connect(bus)
    for number in range(4):
        await appender.append(
            "rl.steps.v1", key=f"k{number % 2}", value=b'{"n": %d}' % number, headers=(("h", b"x"),)
        )
    await appender.append("rl.steps.v1", key="k1", value=b'{"n": 4}')
    await appender.aclose()

    args = ["rl.steps.v1", "--no-follow", "--json", "--since", "1"]
    answer = await invoke(tail.command, [*args, "--key", "k1", "--header", "h=x"])

    assert [json.loads(line)["value"]["n"] for line in answer.stdout.splitlines()] == [1, 3]


def test_a_line_counts_arrays_and_masks_credentials() -> None:
    """No token array and no credential is printed."""
    turn = Turn(
        episode_id="e", turn_id="t", writer="w", seq=0,
        completion=Completion(ids=pack_ids([1, 2, 3]), logprobs=pack_floats([-1, -2, -3])),
    )  # fmt: skip
    headers = (
        *codec.headers(turn, source="/x", subject="e", event_id="1"),
        ("authorization", b"s3cret"),
    )
    value = codec.encode(turn)[:-1] + b', "extra": {"api_key": "s3cret"}}'
    record = Record("rl.turns.v1", 0, 7, "e", value, headers)

    assert "<3 ids>" in tail.as_line(record)
    assert "<3 logprobs>" in tail.as_line(record)
    assert "0@7  turn.v1  e" in tail.as_line(record)
    assert "s3cret" not in tail.as_line(record) + tail.as_object(record)


@pytest.mark.parametrize("value", [None, b"\xff\xfe", b"[" * 100_000, b"plain"])
def test_any_bytes_can_be_shown(value: bytes | None) -> None:
    """A record that is no JSON is shown as what it is."""
    record = Record("rl.dlq.v1", 0, 0, None, value, (("dlq-reason", b"not_json"),))

    assert "[not_json]" in tail.as_line(record)
    json.loads(tail.as_object(record))


def test_a_token_opens_its_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    """`odradek token` signs for the episode with the installation's key."""
    key = episode_tokens.new_key()
    monkeypatch.setenv("ODRADEK_TOKEN_KEYS", key)
    monkeypatch.setenv("ODRADEK_PROXY_URL", "http://127.0.0.1:9/")

    answer = CliRunner().invoke(token.command, ["ep-1", "--json"])

    said = json.loads(answer.stdout)
    assert said["base_url"] == "http://127.0.0.1:9/e/ep-1/v1"
    assert episode_tokens.read(said["token"], [key]).sub == "ep-1"


def printed(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, proxy: str = "http://127.0.0.1:9/"
) -> dict[str, str]:
    """What a shell holds that has evaluated the verb's output."""
    monkeypatch.setenv("ODRADEK_TOKEN_KEYS", episode_tokens.new_key())
    monkeypatch.setenv("ODRADEK_PROXY_URL", proxy)
    answer = CliRunner().invoke(token.command, list(arguments))
    assert answer.exit_code == 0, answer.output
    shell = subprocess.run(
        ["/bin/sh", "-c", f"{answer.stdout}\nexec env -0"], capture_output=True, env={}, check=True
    )
    pairs = [line.split("=", 1) for line in shell.stdout.decode().split("\0") if line]
    return {name: value for name, value in pairs if name not in {"PWD", "SHLVL", "_"}}


@pytest.mark.parametrize("more", [(), ("--in-path",), ("--model", "org/m x")])
def test_a_token_gives_every_variable_that_a_host_gives(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Less the task's files: whoever calls by hand has the same clients as an agent has."""
    given = printed("e1", *more, monkeypatch=monkeypatch)

    rollout = Rollout(
        task=RolloutTask(),
        base_url=given["OPENAI_BASE_URL"],
        api_key=given["OPENAI_API_KEY"],
        model="org/m x" if "--model" in more else "policy",
        episode_id="e1",
    )
    hosts = dict(ProgramRunner("true").launch(rollout, tmp_path).variables)
    for name in ("ODRADEK_TASK_FILE", "ODRADEK_REWARD_FILE", "ODRADEK_REPLY_FILE", "TMPDIR"):
        del hosts[name]
    assert hosts == given
    root = f"http://127.0.0.1:9/t/{rollout.api_key}" if more == ("--in-path",) else "/e/e1"
    assert given["ANTHROPIC_BASE_URL"].endswith(root)
    assert given["OPENAI_BASE_URL"] == f"{given['GOOGLE_GEMINI_BASE_URL']}/v1"


@pytest.mark.parametrize("episode", ["a;id", "$(id)", "`id`", "a'b", 'a"b', "né", "a?b#c", "%2F"])
def test_no_episodes_name_is_code(episode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell evaluates sets variables, whatever the name holds; addresses quote it."""
    given = printed(episode, monkeypatch=monkeypatch)

    assert given["ODRADEK_EPISODE_ID"] == episode
    path = urlsplit(given["OPENAI_BASE_URL"])
    assert (unquote(path.path), path.query) == (f"/e/{episode}/v1", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *[([name], "1 to 256 characters") for name in ("", "a/b", "a b", "a\n", "\x7f", "x" * 257)],
        (["."], "cannot be called ."),
        ([".."], "cannot be called .."),
        (["a\udcff"], "not in UTF-8"),
        (["e", "--model", "\udcff"], "not in UTF-8"),
        (["e", "--agent", "\udcff"], "not in UTF-8"),
        (["e", "--model", "m" * 9000], "the proxy takes 8192"),
        *[(["e", "--hours", h], "above 0") for h in ("0", "-1", "nan", "inf", "1e300", "-inf")],
        (["e", "--hours", "x"], "valid float"),
        (["e", "--calls", "-1"], "--calls"),
    ],
)
def test_what_the_proxy_would_refuse_gets_no_token(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake is told here, not by a 4xx of the first call."""
    monkeypatch.setenv("ODRADEK_TOKEN_KEYS", episode_tokens.new_key())
    answer = CliRunner().invoke(token.command, arguments)

    assert (2, True) == (answer.exit_code, said in answer.output), answer.output


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://p:1", "http://p:1"), ("http://p:1/", "http://p:1"), ("http://p:1/v1", "http://p:1"),
        ("http://p:1/v1/", "http://p:1"), (" http://p:1 ", "http://p:1"), ("https://p/a", "https://p/a"),
        ("http://[::1]:8400", "http://[::1]:8400"), ("", "http://127.0.0.1:8400"),
        ("p:8400", None), ("http://[::1", None), ("ftp://p", None), ("http://u:w@p", None),
        ("http://a,http://b", None), ("http://", None), ("http://p:x", None), (" ", None),
    ],
)  # fmt: skip
def test_the_address_of_the_proxy_is_its_root(
    url: str, root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it was written, clients get one that works, or the mistake is told; hosts as well."""
    monkeypatch.setenv("ODRADEK_TOKEN_KEYS", episode_tokens.new_key())
    monkeypatch.setenv("ODRADEK_PROXY_URL", url)
    answer = CliRunner().invoke(token.command, ["e", "--json"])
    if root is None:
        assert isinstance(answer.exception, ValidationError)
        assert "w@p" not in str(answer.exception.errors(include_input=False))
    else:
        assert f"{root}/e/e/v1" == json.loads(answer.stdout)["base_url"]


def test_a_token_excepts_our_proxy_from_the_companys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a host does for its programs, beside what the shell has excepted already."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "a")
    monkeypatch.delenv("NO_PROXY", raising=False)
    given = printed("e1", monkeypatch=monkeypatch, proxy="http://proxy-box:8400")
    assert "a,127.0.0.1,localhost,::1,proxy-box" == given["NO_PROXY"] == given["no_proxy"]


def test_a_token_without_a_key_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is one clear error."""
    monkeypatch.delenv("ODRADEK_TOKEN_KEYS", raising=False)

    answer = CliRunner().invoke(token.command, ["ep-1"])

    assert "ODRADEK_TOKEN_KEYS" in str(answer.exception)
