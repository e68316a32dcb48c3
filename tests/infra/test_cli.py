"""The command line: a table of verbs, one line for a mistake, nothing imported too early."""

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from odradek.infra.app import cli
from odradek.infra.app.local_kafka.jars import Jar
from odradek.infra.bus import BusSettings
from odradek.infra.errors import KafkaUnreachable

HEAVY = ("torch", "transformers", "faust", "aiokafka", "pydantic", "msgspec", "a2a", "aiohttp")


def run(*args: str, code: int = 0, **env: str) -> str:
    """What `odradek` prints, both streams; the exit code must be `code`."""
    result = CliRunner().invoke(cli.main, args, env=env, prog_name="odradek")
    assert code == result.exit_code, result.output
    return result.output


@pytest.fixture
def verb(monkeypatch):
    """Puts a verb into the table which raises what it is given."""

    def put(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setitem(cli.VERBS, "fail", (__name__, "command", "Fails."))
        monkeypatch.setattr(cli.importlib, "import_module", lambda _: _Module(command))

    return put


class _Module:
    def __init__(self, command: click.Command) -> None:
        self.command = command


def test_help_lists_every_verb_and_imports_nothing_heavy():
    """`odradek --help` is quick: it reads the table and imports no verb."""
    program = (
        "import sys\nfrom odradek.infra.app.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[-1] == "[]"
    listed = {line.split()[0] for line in said if line.startswith("  ") and line.split()}
    assert set(cli.VERBS) <= listed


def test_the_module_runs_as_the_command():
    """`python -m odradek.infra.app.cli` is how processes are started."""
    said = subprocess.run(
        [sys.executable, "-m", "odradek.infra.app.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("odradek, version ")


def test_an_unknown_verb_names_the_nearest():
    """One line, exit code 2."""
    assert run("tasksk", code=2) == "odradek: there is no verb 'tasksk': did you mean `tasks`?\n"


def test_a_verb_that_is_not_installed_says_so(monkeypatch):
    """One line, exit code 2."""
    monkeypatch.setitem(cli.VERBS, "later", ("odradek.infra.app.cli.later", "command", "Later."))
    assert run("later", code=2) == "odradek: this installation has no `odradek later`\n"


def test_a_wrong_option_is_one_line_that_names_the_help():
    """One line, exit code 2."""
    said = run("kafka", "start", "--nope", code=2)
    assert said == "odradek: No such option: --nope (`odradek kafka start --help` tells more)\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaUnreachable("no Kafka answers"), "no Kafka answers"),
        (ExceptionGroup("tasks", [KafkaUnreachable("no Kafka answers")]), "no Kafka answers"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            "this needs torch.nn: pip install 'odradek[trainer]'",
        ),
        (
            ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn"),
            "this needs uvicorn: pip install 'odradek[a2a]'",
        ),
    ],
)
def test_errors_with_a_name_are_one_line(verb, error, expected):
    """Ours, alone or in a group, and what an extra would bring: exit code 2."""
    verb(error)
    assert run("fail", code=2) == f"odradek: {expected}\n"


def test_a_wrong_setting_is_one_line_without_its_value(verb):
    """The class and the field are named; the value may be a secret."""
    with pytest.raises(ValidationError) as caught:
        BusSettings(topic_partitions="s3cret")
    verb(caught.value)
    said = run("fail", code=2)
    assert said.startswith("odradek: BusSettings: topic_partitions: ")
    assert said.count("\n") == 1
    assert "s3cret" not in said


def test_a_bug_keeps_its_traceback(verb):
    """An error without a name is no mistake of the user: it is raised as it is."""
    verb(ZeroDivisionError("bug"))
    result = CliRunner().invoke(cli.main, ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_ctrl_c_is_quiet(verb):
    """Exit code 130 and nothing to read."""
    verb(KeyboardInterrupt())
    assert run("fail", code=130).strip() == ""


def test_status_of_no_broker_is_exit_code_1(tmp_path):
    """As a script wants it; --json says the same."""
    assert "no broker" in run("kafka", "status", "--dir", str(tmp_path), code=1)
    said = json.loads(run("kafka", "status", "--json", "--dir", str(tmp_path), code=1))
    assert not said["running"]
    assert {"stopped": False, "folder": str(tmp_path)} == json.loads(
        run("kafka", "stop", "--json", "--dir", str(tmp_path))
    )


def test_fetch_reports_a_corrupted_jar(monkeypatch, tmp_path):
    """One line, exit code 2, the same as any mistake."""
    monkeypatch.setattr(
        "odradek.infra.app.local_kafka.jars.pinned", lambda: (Jar("g", "a", "1", "0" * 64),)
    )
    monkeypatch.setenv("ODRADEK_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "jars" / "kafka-4.3.1"
    folder.mkdir(parents=True)
    (folder / "a-1.jar").write_bytes(b"not a jar")
    said = run("kafka", "fetch", code=2)
    assert said.startswith("odradek: a-1.jar has SHA-256 ")
    assert said.count("\n") == 1


def test_topics_without_kafka_say_how_to_get_one():
    """No server named, and a server that is not there."""
    said = run("topics", "apply", code=2, ODRADEK_KAFKA_BOOTSTRAP_SERVERS="")
    assert "odradek kafka start" in said
    said = run("topics", "list", code=2, ODRADEK_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert "no Kafka answers at 127.0.0.1:1" in said


@pytest.mark.broker
def test_topics_apply_creates_once_and_list_shows_them(broker):
    """The second apply creates nothing; an agent's topics are listed once they are there."""
    from uuid import uuid4

    prefix = f"t{uuid4().hex[:10]}."
    env = {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": broker,
        "ODRADEK_TOPIC_PREFIX": prefix,
        "ODRADEK_TOPIC_PARTITIONS": "2",
    }
    created = json.loads(run("topics", "apply", "--agent", "hilo", "--json", **env))["created"]
    assert f"{prefix}a2a.requests.hilo" in created
    again = json.loads(run("topics", "apply", "--agent", "hilo", "--json", **env))
    assert {"created": [], "there": len(created)} == again
    listed = json.loads(run("topics", "list", "--json", **env))["topics"]
    assert sorted(created) == sorted(row["name"] for row in listed)
    counts = {row["name"]: row["partitions"] for row in listed}
    assert (counts[f"{prefix}rl.turns.v1"], counts[f"{prefix}rl.batches.v1"]) == (2, 1)


def test_asyncapi_is_a_document_of_every_topic():
    """Printed without any Kafka."""
    document = json.loads(run("topics", "asyncapi", "--server", "box:1", ODRADEK_TOPIC_PREFIX="x."))
    assert document["asyncapi"].startswith("3.")
    assert "x.rl.turns.v1" in {each["address"] for each in document["channels"].values()}
