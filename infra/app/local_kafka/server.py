"""One Kafka server as files and command lines: what LocalBroker and the daemon have in common."""

import base64
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes

from msgspec import Struct

from odradek.infra.app.local_kafka.errors import BrokerDied, BrokerSilent, NoDisk, PortInUse
from odradek.infra.app.local_kafka.jars import Progress, fetch_jars
from odradek.infra.app.local_kafka.java import find_java

HOST: Final = "127.0.0.1"
FREE_DISK: Final = 256 * 1024 * 1024
"""Bytes that must be free below the data folder before we start."""
CWD: Final = Path("/proc/self/cwd")
"""On Linux: a process' own folder by a name in ASCII, whatever the folder is called."""
NO_CLASS: Final = "Could not find or load main class"
FEW: Final = 256
"""Open files with which Kafka cannot do its work."""
TAIL: Final = 6
"""How many lines of the log an error quotes."""

# Small on purpose: 180 MB of memory, 3.5 s to the first answer, enough for 100,000 records/s.
JVM: Final = (
    "-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
    "-Djava.awt.headless=true", "--enable-native-access=ALL-UNNAMED",
)  # fmt: skip

LOG4J: Final = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


class BrokerPlace(Struct, frozen=True):
    """Where a server lives: its folder and its two ports on loopback."""

    folder: Path
    port: int
    controller_port: int

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"{HOST}:{self.port}"

    @property
    def properties(self) -> Path:
        """The configuration file."""
        return self.folder / "server.properties"

    @property
    def mark(self) -> str:
        """A name of the folder in ASCII, for the server's command line."""
        return mark(self.folder)

    @property
    def log(self) -> Path:
        """The file of the server's output."""
        return self.folder / "server.log"


def mark(folder: Path) -> str:
    """The argument of a command line by which we know the server of a folder again."""
    return f"-Dodradek.folder={quote_from_bytes(os.fsencode(folder))}"


def environment() -> dict[str, str]:
    """The variables of a server: ours, with a locale in which Java reads any name in UTF-8.

    In others, such as `C`, it takes an accent in a folder's name for something else and keeps its
    data in a folder of that other name.
    """
    return {**os.environ, "LC_ALL": "C.UTF-8"} if sys.platform == "linux" else dict(os.environ)


def choose(folder: Path, port: int = 0) -> BrokerPlace:
    """A server in a folder, on the port given or a free one.

    Raises:
        PortInUse: Something listens on the port.
        NoDisk: The folder cannot be made or has too little space.
    """
    if port:
        _refuse_used(port)
    try:
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise NoDisk(f"cannot use {folder} for Kafka's data: {error.strerror}") from error
    if free < FREE_DISK:
        raise NoDisk(
            f"{free // 2**20} MiB are free below {folder}, Kafka needs {FREE_DISK // 2**20}: "
            "make room or choose another folder"
        )
    ports = free_ports(2)
    return BrokerPlace(folder.absolute(), port or ports[0], ports[1])


def prepare(
    server: BrokerPlace, overrides: Mapping[str, str], progress: Progress | None = None
) -> list[str]:
    """Write the configuration, format the folder once, and return the server's command line.

    It is to be run in the server's folder: all its paths are relative, since Kafka splits its
    `log.dirs` at commas, Java its class path at colons, and both escape what they read.

    Raises what `fetch_jars` and `find_java` raise, and BrokerDied when formatting fails.
    """
    jars = fetch_jars(progress=progress)
    java = [
        str(find_java()),
        *JVM,
        *_folder_properties(server.folder),
        server.mark,
        "-Dlog4j2.configurationFile=log4j2.properties",
        "-cp",
        os.pathsep.join(f"jars/{jar.name}" for jar in jars),
    ]
    settings = {**_settings(server), **overrides}
    try:
        _link(server.folder / "jars", jars[0].parent)
        (server.folder / "log4j2.properties").write_text(LOG4J, encoding="ascii")
        server.properties.write_text(
            "".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8"
        )
    except OSError as error:
        raise NoDisk(f"cannot write {server.properties}: {error.strerror}") from error
    if not (server.folder / "data" / "meta.properties").exists():
        _format([*java, "kafka.tools.StorageTool"], server, new_cluster_id())
    return [*java, "kafka.Kafka", server.properties.name]


def wait_until_ready(server: BrokerPlace, alive: Callable[[], bool], timeout_s: float) -> None:
    """Return once the server answers a metadata request and lists itself as a broker.

    Raises:
        PortInUse: The server found its port taken after all.
        NoDisk: The server found no space.
        BrokerDied: The process ended first.
        BrokerSilent: Nothing in `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not answers(server.port):
        if not alive():
            raise _died(server)
        if time.monotonic() > deadline:
            raise BrokerSilent(
                f"Kafka on {server.bootstrap_servers} gave no answer in {timeout_s:.0f} s; "
                f"see {server.log}"
            )
        time.sleep(0.05)


def answers(port: int, timeout_s: float = 2.0) -> bool:
    """Whether a broker on this loopback port answers a metadata request and is in service."""
    from aiokafka.protocol.metadata import MetadataRequest_v5, MetadataResponse_v5

    request = MetadataRequest_v5([], False)  # no topics, and create none
    header = request.build_request_header(correlation_id=1, client_id="odradek-local")
    body: bytes = header.encode() + request.encode()
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
            connection.sendall(len(body).to_bytes(4, "big") + body)
            size = int.from_bytes(_read(connection, 4), "big")
            answer = BytesIO(_read(connection, min(size, 2**20)))
    except OSError:
        return False
    answer.read(4)  # the correlation id
    try:
        return bool(MetadataResponse_v5.decode(answer).brokers)
    except ValueError:  # something else listens there and says other things
        return False


def new_cluster_id() -> str:
    """16 random bytes in urlsafe base64; no leading '-', which the tool takes for an option."""
    drawn = os.urandom(16)
    return base64.urlsafe_b64encode(bytes([drawn[0] & 0x7F]) + drawn[1:]).decode().rstrip("=")


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nothing listens on now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(n)]
    try:
        for probe in sockets:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log that tell something: Java's stack frames are left out."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    telling = [line for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    return "\n".join(telling[-lines:])


def _settings(server: BrokerPlace) -> dict[str, str]:
    """server.properties of one node which is broker and controller, and asks for little."""
    brokers = f"PLAINTEXT://{HOST}:{server.port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"{brokers},CONTROLLER://{HOST}:{server.controller_port}",
        "advertised.listeners": brokers,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@{HOST}:{server.controller_port}",
        "log.dirs": "data",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        # After a crash the controller waits for the old registration to run out: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # Twice a second it would write down that nothing happened, for half of what idling costs.
        "metadata.max.idle.interval.ms": "0",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "log.cleaner.dedupe.buffer.size": "4194304",
        "num.io.threads": "2",
        "num.network.threads": "2",
        "auto.create.topics.enable": "false",
    }


def _folder_properties(folder: Path) -> tuple[str, ...]:
    """What Java calls its own folder and the one for its libraries' temporary files.

    Where the folder has a name that no locale can spell, Linux has another one for it.
    """
    try:
        os.fsencode(folder).decode()
    except UnicodeDecodeError:
        return (f"-Duser.dir={CWD}", f"-Djava.io.tmpdir={tempfile.gettempdir()}")
    return ("-Djava.io.tmpdir=tmp",)


def _link(place: Path, target: Path) -> None:
    """Make a symbolic link, in the place of one that may be there. Raises OSError."""
    temporary = place.with_name(f".{place.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.absolute())
    temporary.replace(place)


def _format(tool: list[str], server: BrokerPlace, cluster_id: str) -> None:
    process = subprocess.run(
        [*tool, "format", "-t", cluster_id, "-c", server.properties.name, "--ignore-formatted"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        cwd=server.folder,
        env=environment(),
        check=False,
    )
    if process.returncode:
        server.log.write_text(process.stdout + process.stderr, encoding="utf-8")
        raise _died(server)


def _died(server: BrokerPlace) -> BrokerDied | PortInUse | NoDisk:
    """Read from the log why the server ended."""
    text = tail(server.log, 2000)
    last = f"Its log ends:\n{tail(server.log)}\n({server.log})"
    if "Address already in use" in text:
        return PortInUse(f"another process listens on {server.bootstrap_servers}. {last}")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Below some dozens Java cannot even open its jars, and says that it has no such class.
    if "Too many open files" in text or (NO_CLASS in text and limit < FEW):
        return BrokerDied(
            f"Kafka may open no more than {limit} files here: raise the limit "
            f"(`ulimit -n 4096`, or `nofile` of the container). {last}"
        )
    if "Failed to acquire lock" in text:
        return BrokerDied(
            f"another Kafka uses {server.folder}: end the other `odradek up`, or `odradek kafka "
            f"stop`, or go on with that one (ODRADEK_KAFKA_BOOTSTRAP_SERVERS). {last}"
        )
    if "No space left on device" in text:
        return NoDisk(f"no space left below {server.folder}. {last}")
    return BrokerDied(f"Kafka ended before it answered. {last}")


def _refuse_used(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port in TIME_WAIT is free for a server that sets this, and Kafka does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortInUse(
                f"port {port} on {HOST} cannot be used ({error.strerror}): stop what listens "
                "there or choose another with --port"
            ) from error


def _read(connection: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        chunk = connection.recv(n - len(data))
        if not chunk:
            raise ConnectionResetError
        data += chunk
    return data
