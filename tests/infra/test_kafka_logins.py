"""Settings of TLS and of SASL PLAIN and SCRAM open a real broker that demands them."""

import datetime as dt
import ipaddress
import os
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.app.local_kafka.jars import fetch_jars
from odradek.infra.app.local_kafka.java import find_java
from odradek.infra.app.local_kafka.server import _settings, choose, free_ports, new_cluster_id
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics
from odradek.infra.client import records
from odradek.infra.errors import InfraError
from odradek.schemas.topics import TASKS

pytestmark = [pytest.mark.broker, pytest.mark.slow]
PASSWORD = "not-a-real-password"
MODULE = "org.apache.kafka.common.security"


def certificate(folder):
    """A self-signed certificate for 127.0.0.1: key and certificate in one file, and alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kafka of a test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "both.pem").write_bytes(private + pem)
    (folder / "ca.pem").write_bytes(pem)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Addresses of a broker by the protocol that each demands, and the folder of its CA."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate(folder)
    plain, controller, tls, login = free_ports(4)
    at = "127.0.0.1:"
    overrides = {
        "listeners": f"PLAINTEXT://{at}{plain},CONTROLLER://{at}{controller},"
        f"TLS://{at}{tls},LOGIN://{at}{login}",
        "advertised.listeners": f"PLAINTEXT://{at}{plain},TLS://{at}{tls},LOGIN://{at}{login}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,"
        "LOGIN:SASL_SSL",
        "controller.quorum.voters": f"1@{at}{controller}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "both.pem"),
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.login.plain.sasl.jaas.config": f"{MODULE}.plain.PlainLoginModule required "
        f'user_me="{PASSWORD}";',
        **{
            f"listener.name.login.scram-sha-{bits}.sasl.jaas.config": f"{MODULE}.scram."
            "ScramLoginModule required;"
            for bits in (256, 512)
        },
    }
    data = folder / "kafka"
    users(data, plain, overrides)
    with LocalBroker(data, port=plain, overrides=overrides):
        yield {"SSL": f"{at}{tls}", "SASL_SSL": f"{at}{login}"}, folder / "ca.pem"


def users(folder, port, overrides):
    """Format a broker's folder so that it knows a user of SCRAM from its first start."""
    server = choose(folder, port)
    server.properties.write_text(
        "".join(f"{k}={v}\n" for k, v in {**_settings(server), **overrides}.items())
    )
    scram = [
        word
        for bits in (256, 512)
        for word in ("--add-scram", f"SCRAM-SHA-{bits}=[name=me,password={PASSWORD}]")
    ]
    done = subprocess.run(
        [find_java(), "-cp", os.pathsep.join(map(str, fetch_jars())), "kafka.tools.StorageTool",
         "format", "-t", new_cluster_id(), "-c", server.properties, *scram],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr[-2000:]


LOGINS = {
    "tls": {"security_protocol": "SSL"},
    "plain": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"},
    "scram-256": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256"},
    "scram-512": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512"},
}


def settings(guarded, login, password=PASSWORD):
    """Settings as the environment would give them."""
    addresses, ca = guarded
    told = LOGINS[login]
    if "sasl_mechanism" in told:
        told = {**told, "sasl_username": "me", "sasl_password": password}
    return BusSettings(
        bootstrap_servers=addresses[told["security_protocol"]],
        ssl_cafile=str(ca),
        topic_prefix=f"{login}.",
        topic_partitions=1,
        **told,
    )


@pytest.mark.parametrize("login", LOGINS)
async def test_admin_producer_and_consumer_get_in(guarded, login):
    """Every client of ours passes the login on."""
    bus = settings(guarded, login)
    await ensure_topics(bus, [(TASKS.name, TASKS)])
    appender = await KafkaAppender.connect(bus)
    await appender.append(TASKS.name, key="k", value=b"v")
    await appender.aclose()
    found = [r.value async for r in records(TASKS.name, since="beginning", follow=False, bus=bus)]
    assert [b"v"] == found


@pytest.mark.parametrize("login", ["plain", "scram-256"])
async def test_a_wrong_password_is_one_clear_error(guarded, login):
    """The error says that Kafka refuses us, and not what the password was."""
    with pytest.raises(InfraError) as caught:
        await KafkaAppender.connect(settings(guarded, login, password="wrong-one"))
    assert "wrong-one" not in str(caught.value)
    assert "refuses" in str(caught.value)
