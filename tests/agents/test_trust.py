"""Signed requests: what passes, what is refused, and whose task is whose."""

import time

import jwt
import msgspec
import pytest
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import InvalidRequestError, TaskNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.agents.binding import headers as names
from odradek.agents.binding.headers import RequestHeaders, read, write
from odradek.agents.binding.requests import SampleAddress, dump, send_headers, send_value
from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.errors import AssertionRefused
from odradek.agents.trust import assertion, keys
from odradek.agents.trust.principal import own_message_id
from odradek.agents.trust.replay import SignatureRenewal
from odradek.agents.trust.settings import TrustSettings, accepts_unsigned
from odradek.agents.trust.signer import RequestSigner
from odradek.agents.trust.verifier import RequestVerifier
from odradek.infra.bus import BusSettings, Record
from odradek.infra.errors import ProjectError
from odradek.schemas.events import raw
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.producers import written

from .conftest import told

AGENT = "kafka:///player"
NOW = 1_800_000_000.0
VALUE = b'{"id": "t1"}'


@pytest.fixture
def ring(tmp_path):
    written(tmp_path, "gateway", "key/*")
    written(tmp_path, "stranger", public="elsewhere")
    return keys.KeyRing(tmp_path / "public")


def request(folder, signer="gateway", *, principal="key/ann", kid="", now=NOW, audience=AGENT):
    """A record with its assertion."""
    jwk, key = keys.read_private(folder / f"{signer}.json")
    headers = write(
        RequestHeaders(
            operation="GetTask",
            correlation_id="c1",
            reply_topic="a2a.replies.clients",
            reply_partition=2,
            deadline=NOW + 60,
            traceparent="00-1-2-01",
        )
    )
    signed = assertion.sign(
        key, kid or jwk.kid, principal=principal, audience=audience, record_key="t1",
        value=VALUE, headers=headers, now=now,
    )  # fmt: skip
    pairs = (*headers, (names.ASSERTION, signed))
    return Record("a2a.requests.player", 0, 0, "t1", VALUE, pairs, NOW, appended=True)


def changed(record, name, value):
    """The record with another header, or another field, than was signed."""
    if name in record.__struct_fields__:
        return msgspec.structs.replace(record, **{name: value})
    rest = [pair for pair in record.headers if pair[0] != name]
    return msgspec.structs.replace(record, headers=(*rest, (name, value)))


def verified(ring, record, *, unsigned=False):
    verifier = RequestVerifier(ring, audience=AGENT, unsigned=unsigned)
    return verifier.verified(record, read(record.headers))


def test_a_signed_request_is_its_principals(tmp_path, ring):
    """Also when it has waited for its agent for a year; its trace may change on the way."""
    record = changed(request(tmp_path), "traceparent", b"00-3-4-01")
    called = verified(ring, record)
    assert ("key/ann", False, "GetTask") == (called.principal, called.may_sample, called.operation)


def token(tmp_path, *, key=None, algorithm="EdDSA", **header):
    """An assertion that says the right things and is signed in another way."""
    right = dict(request(tmp_path).headers)[names.ASSERTION]
    claims = jwt.decode(right, options={"verify_signature": False})
    header = {"kid": "gateway", "typ": assertion.TYPE, **header}
    return jwt.encode(claims, key, algorithm=algorithm, headers=header).encode()


FORGED = [
    ("unsigned", lambda f: changed(request(f), names.ASSERTION, b"")),
    ("bad_assertion", lambda f: changed(request(f), names.ASSERTION, b"x.y.z")),
    ("bad_assertion", lambda f: changed(request(f), names.ASSERTION, b"x" * 20_000)),
    ("unknown_key", lambda f: request(f, kid="other")),
    ("unknown_key", lambda f: request(f, kid="../gateway")),
    ("bad_signature", lambda f: request(f, "stranger", principal="gateway", kid="gateway")),
    ("wrong_audience", lambda f: request(f, audience="kafka:///other")),
    ("wrong_principal", lambda f: request(f, principal="dispatcher")),
    ("wrong_principal", lambda f: request(f, principal="")),
    ("expired_assertion", lambda f: request(f, now=NOW - 400)),
    ("expired_assertion", lambda f: request(f, now=NOW + 400)),
    ("altered", lambda f: changed(request(f), "value", b'{"id": "t2"}')),
    ("altered", lambda f: changed(request(f), "key", "t2")),
    ("altered", lambda f: changed(request(f), names.OPERATION, b"CancelTask")),
    ("altered", lambda f: changed(request(f), names.REPLY_TOPIC, b"a2a.replies.mine")),
    ("altered", lambda f: changed(request(f), names.REPLY_PARTITION, b"3")),
    ("altered", lambda f: changed(request(f), names.CORRELATION, b"c2")),
    ("altered", lambda f: changed(request(f), names.DEADLINE, b"2099-01-01T00:00:00Z")),
    ("altered", lambda f: changed(request(f), names.TENANT, b"other")),
    # Key confusion: the public key, which everybody has, as the secret of an HMAC; and no key.
    ("bad_assertion", lambda f: changed(request(f), names.ASSERTION,
        token(f, key=keys.read_private(f / "gateway.json")[0].x, algorithm="HS256"))),
    ("bad_assertion", lambda f: changed(request(f), names.ASSERTION,
        token(f, algorithm="none"))),
    # A token of the right key for something else.
    ("bad_assertion", lambda f: changed(request(f), names.ASSERTION,
        token(f, key=keys.read_private(f / "gateway.json")[1], typ="JWT"))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "forge"), FORGED)
def test_what_nobody_signed_as_it_stands_is_refused(tmp_path, ring, reason, forge):
    """With a reason of its own, by the key that the host has and by no word of the token."""
    with pytest.raises(AssertionRefused) as refused:
        verified(ring, forge(tmp_path))
    assert reason == refused.value.reason


def renewal(folder, signer):
    trust = TrustSettings(
        signing_key=folder / f"{signer}.json", verification_keys=folder / "public"
    )
    bus = BusSettings(bootstrap_servers="127.0.0.1:9092", topic_prefix="")
    return SignatureRenewal.of(bus, trust)


def test_a_request_that_is_sent_again_is_signed_anew_for_its_principal(tmp_path, ring):
    """However old its signature is; by a key that may speak for that principal."""
    old = request(tmp_path)
    now = msgspec.structs.replace(renewal(tmp_path, "gateway").renewed(old), timestamp=time.time())
    with pytest.raises(AssertionRefused, match="expired_assertion"):
        verified(ring, msgspec.structs.replace(old, timestamp=now.timestamp))
    assert "key/ann" == verified(ring, now).principal
    assert old.headers[:-1] == now.headers[:-1]
    written(tmp_path, "other")
    assert old == renewal(tmp_path, "other").renewed(old)
    written(tmp_path, "samples", "key/*", samples=True)  # it would give a right that ann never had
    assert old == renewal(tmp_path, "samples").renewed(old)


@pytest.mark.parametrize(("reason", "forge"), FORGED)
def test_a_forged_request_that_is_sent_again_stays_as_it_is(tmp_path, ring, reason, forge):
    """Its claims are nobody's word; one whose time alone was wrong was signed by its producer."""
    forged = forge(tmp_path)
    renewed = renewal(tmp_path, "gateway").renewed(forged)
    assert (reason == "expired_assertion") == (renewed != forged)


def test_a_forged_assertion_is_refused_where_unsigned_requests_are_accepted(tmp_path, ring):
    """Whoever signs is held to it; a host without keys knows no signature."""
    forged = request(tmp_path, "stranger", principal="gateway", kid="gateway")
    with pytest.raises(AssertionRefused, match="bad_signature"):
        verified(ring, forged, unsigned=True)
    with pytest.raises(AssertionRefused, match="unknown_key"):
        verified(None, request(tmp_path), unsigned=True)
    plain = changed(request(tmp_path), names.ASSERTION, b"")
    assert "" == verified(ring, plain, unsigned=True).principal


def test_an_assertion_counts_in_its_time_where_the_producer_sets_the_clock(tmp_path, ring):
    """A topic with create times: only what was signed just now passes."""
    old = msgspec.structs.replace(request(tmp_path), appended=False)
    with pytest.raises(AssertionRefused, match="expired_assertion"):
        verified(ring, old)
    fresh = msgspec.structs.replace(request(tmp_path, now=time.time()), appended=False)
    assert "key/ann" == verified(ring, fresh).principal


@settings(max_examples=20)
@given(st.sampled_from(["key", "value", "header"]), st.text(min_size=1))
def test_no_other_key_value_or_header_passes(tmp_path_factory, where, text):
    """Whatever the text is, unless it is what was signed."""
    folder = tmp_path_factory.getbasetemp() / "forge"
    if not folder.exists():
        folder.mkdir()
        written(folder, "gateway", "key/*")
    record = request(folder)
    try:
        value = text.encode()
    except UnicodeEncodeError:
        return
    other = {
        "key": lambda: changed(record, "key", text),
        "value": lambda: changed(record, "value", value),
        "header": lambda: changed(record, "a2a-extensions", value),
    }[where]()
    with pytest.raises(AssertionRefused, match="altered"):
        verified(keys.KeyRing(folder / "public"), other)


def test_a_key_that_is_added_counts_and_one_that_is_taken_away_does_not(tmp_path, monkeypatch):
    """Without a restart; a broken file leaves the keys as they are."""
    monkeypatch.setattr(keys, "RELOAD_S", 0.0)
    written(tmp_path, "old", "key/*")
    ring = keys.KeyRing(tmp_path / "public")
    written(tmp_path, "new", "key/*")
    assert "key/ann" == verified(ring, request(tmp_path, "new")).principal
    (tmp_path / "public" / "old.json").unlink()
    with pytest.raises(AssertionRefused, match="unknown_key"):
        verified(ring, request(tmp_path, "old"))
    (tmp_path / "public" / "old.json").write_text("{")
    assert "key/ann" == verified(ring, request(tmp_path, "new")).principal


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "{}", '{"kid": "a", "x": "?"}', '{"kid": "a", "kty": "oct", "x": "", "k": "c2Vj"}',
        '{"kid": "a", "kty": "OKP", "crv": "X25519", "x": "A3YkGRq6mQhMOnIYd0p9BrdNkknWgihRVXjwJSruzTo"}',
        '{"kid": "", "kty": "OKP", "crv": "Ed25519", "x": "A3YkGRq6mQhMOnIYd0p9BrdNkknWgihRVXjwJSruzTo"}',
        '{"kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "AAAA"}',
    ],
)  # fmt: skip
def test_a_file_that_holds_no_key_of_ours_is_named(tmp_path, text):
    """By its path; secrets of HMACs and keys of other curves among them."""
    path = tmp_path / "key.json"
    path.write_text(text)
    for reads in (keys.KeyRing, keys.read_private):
        with pytest.raises(ProjectError, match=r"key\.json"):
            reads(path)


@pytest.mark.parametrize(
    ("accepted", "policy", "servers"),
    [
        (True, None, "127.0.0.1:9092"),
        (True, None, "localhost:9092,127.3.0.1:9093"),
        (True, None, "[::1]:9092"),
        (True, None, "[::ffff:127.0.0.1]:9092"),
        (False, None, "127.0.0.1:9092,10.0.0.1:9092"),
        (False, None, "kafka:9092"),
        (False, None, "localhost.example.com:9092"),
        (False, None, "127.0.0.1.example.com:9092"),
        (False, None, "0.0.0.0:9092"),
        (False, None, "127.1:9092"),
        (False, None, ""),
        (False, None, "["),
        (True, "accept", "kafka:9092"),
        (False, "refuse", "127.0.0.1:9092"),
    ],
)
def test_unsigned_requests_are_accepted_on_loopback_only(accepted, policy, servers):
    """Unless the setting says otherwise; every broker counts, and no name but localhost."""
    assert accepted is accepts_unsigned(policy, servers)


def test_processes_that_nobody_would_hear_do_not_start(tmp_path):
    """A producer without a key, and a host without keys, where requests are signed."""
    bus = BusSettings(bootstrap_servers="kafka:9092")
    with pytest.raises(ProjectError, match="ODRADEK_TRUST_SIGNING_KEY"):
        RequestSigner.of(bus, TrustSettings())
    with pytest.raises(ProjectError, match="ODRADEK_TRUST_VERIFICATION_KEYS"):
        RequestVerifier.of("player", bus, TrustSettings())
    assert RequestSigner.of(bus, TrustSettings(unsigned="accept")) is None
    patterns = keys.new_key("k", ("key/*",))
    (tmp_path / "k.json").write_bytes(msgspec.json.encode(patterns))
    with pytest.raises(ProjectError, match="no principal of its own"):
        RequestSigner.of(bus, TrustSettings(signing_key=tmp_path / "k.json"))


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text(min_size=1)))
def test_two_principals_never_share_a_messages_id(first, second):
    """Nor does one have two names for a message."""
    same = own_message_id(*first) == own_message_id(*second)
    assert (first == second) is same


def message(text, name, *, task=""):
    part = [Part(text=text)]
    return SendMessageRequest(
        message=Message(message_id=name, role=Role.ROLE_USER, parts=part, task_id=task)
    )


@pytest.mark.broker
async def test_a_foreign_task_is_answered_as_one_that_is_absent(stage, tmp_path):
    """In every operation; who sends the same message id gets a task of its own."""
    ann, bob = (written(tmp_path, name) for name in ("ann", "bob"))
    host = TrustSettings(verification_keys=tmp_path / "public", unsigned="refuse")
    await stage.host(ConformanceAgent(), trust=host, push=True)
    async with (
        KafkaConnection(stage.bus, trust=TrustSettings(signing_key=ann)) as hers,
        KafkaConnection(stage.bus, trust=TrustSettings(signing_key=bob)) as his,
        KafkaConnection(stage.bus, trust=TrustSettings()) as nobodys,
    ):
        own, foreign, unsigned = (
            KafkaTransport(connection, "player", timeout_s=60.0)
            for connection in (hers, his, nobodys)
        )
        asks = (await own.send_message(message("x", "tck-input-required"))).task
        done = (await own.send_message(message("x", "m1"))).task
        for task in (asks, done):
            for call in (
                lambda t, i: t.get_task(GetTaskRequest(id=i)),
                lambda t, i: t.cancel_task(CancelTaskRequest(id=i)),
                lambda t, i: anext(t.subscribe(SubscribeToTaskRequest(id=i))),
                lambda t, i: t.send_message(message("x", "m9", task=i)),
                lambda t, i: t.list_task_push_notification_configs(
                    ListTaskPushNotificationConfigsRequest(task_id=i)
                ),
            ):
                with pytest.raises(TaskNotFoundError) as absent:
                    await call(foreign, "absent")
                with pytest.raises(TaskNotFoundError) as theirs:
                    await call(foreign, task.id)
                assert str(absent.value) == str(theirs.value)
        other = (await foreign.send_message(message("x", "m1"))).task
        again = (await own.send_message(message("x", "m1"))).task
        assert (done.id, True) == (again.id, other.id != done.id)
        listed = [await t.list_tasks(ListTasksRequest()) for t in (own, foreign)]
        assert [{asks.id, done.id}, {other.id}] == [{t.id for t in page.tasks} for page in listed]
        with pytest.raises(InvalidRequestError, match="unsigned"):
            await unsigned.get_task(GetTaskRequest(id=done.id))
        cancelled = await own.cancel_task(CancelTaskRequest(id=asks.id))
        assert TaskState.TASK_STATE_CANCELED == cancelled.status.state
    events = await stage.read("a2a.events.player")
    assert {"ann", "bob"} == {told(event)["a2a-principal"] for event in events}


@pytest.mark.broker
async def test_a_request_that_nobody_signed_is_a_dead_letter_and_changes_nothing(stage, tmp_path):
    """Nor may any key send samples; a sample that may be is played."""
    signers = {}
    for name, samples in (("dispatcher", True), ("ann", False)):
        path = written(tmp_path, name, samples=samples)
        signers[name] = RequestSigner.of(stage.bus, TrustSettings(signing_key=path))
    trust = TrustSettings(verification_keys=tmp_path / "public", unsigned="refuse")
    await stage.host(ConformanceAgent(), trust=trust)
    for number, name in enumerate(("", "ann", "dispatcher")):
        key, value = f"m{number}", send_value(f"m{number}", raw("x"), SampleAddress(task_id="t"))
        headers = send_headers(deadline=None, traceparent=None)
        if name:
            headers = signers[name].signed("player", key=key, value=value, headers=headers)
        await stage.request(value, headers, key=key)
    cancel = dump(CancelTaskRequest(id=stage.episode("m2")))
    await stage.request(cancel, write(RequestHeaders(operation="CancelTask")), key="m2")
    await stage.ended("m2")

    async def letters():
        found = await stage.read("a2a.dlq.player")
        return found if len(found) == 3 else None

    letters = await stage.until(letters)
    assert [("no_samples", "m1"), ("unsigned", "m0"), ("unsigned", "m2")] == sorted(
        (told(letter)["dlq-reason"], letter.key) for letter in letters
    )
    tasks = {record.key for record in await stage.read("a2a.tasks.player")}
    assert {stage.episode("m2")} == tasks
