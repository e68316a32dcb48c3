"""The gateway's door: who is let in, as whom, and how often."""

import json
import time
from types import SimpleNamespace

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from odradek.agents.errors import KeysUnavailable, Unauthenticated
from odradek.agents.gateway.access import bearer_keys, jwks, refresh
from odradek.agents.gateway.access.authenticator import ClientAuthenticator, TokenVerifier
from odradek.agents.gateway.access.bearer_keys import BearerKeys, add_key
from odradek.agents.gateway.access.door import Admission, Door
from odradek.agents.gateway.access.jwks import TokenKeys, usable
from odradek.agents.gateway.access.rates import RequestRates
from odradek.agents.gateway.access.refresh import RefreshSchedule
from odradek.agents.gateway.server import Gateway
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving
from tests.support.agents.producers import written

ISSUER, AUDIENCE = "https://issuer.example", "odradek"
EC, ED, STRANGER = (
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
    ec.generate_private_key(ec.SECP256R1()),
)
SECRET = "s" * 40
SET = {
    "keys": [
        {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "ec"},
        {**OKPAlgorithm.to_jwk(ED.public_key(), as_dict=True), "kid": "ed", "alg": "EdDSA"},
        {"kty": "oct", "kid": "secret", "k": "c3Nzc3M", "alg": "HS256"},
        {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "enc", "use": "enc"},
        {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "odd", "alg": "HS256"},
        {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "AAAA", "y": "AAAA"},
        "no key",
    ]
}
PEM = EC.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def token(key=EC, algorithm="ES256", *, kid="ec", without="", **claims):
    """A token that is valid, but for what is given."""
    now = time.time()
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 36_000, **claims}
    said.pop(without, None)
    return jwt.encode(said, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


def confused():
    """A token whose HMAC has the public key as its secret, made without PyJWT's own guard."""
    import base64
    import hmac

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "kid": "ec", "typ": "JWT"}).encode())
    body = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": 9e9}, SECRET)
    signed = head + b"." + body.split(".")[1].encode()
    return (signed + b"." + part(hmac.digest(PEM, signed, "sha256"))).decode()


async def read_set():
    return json.dumps(SET).encode()


@pytest.fixture
def door():
    """Knows clients by tokens alone."""
    tokens = TokenVerifier(TokenKeys(read_set, "here"), issuer=ISSUER, audience=AUDIENCE)
    return ClientAuthenticator(None, tokens)


@pytest.mark.parametrize("good", [token(), token(ED, "EdDSA", kid="ed")])
async def test_a_valid_token_is_its_subjects(door, good):
    """Whatever key of the set signed it; the scheme's name has no case."""
    assert "jwt/ann" == await door.principal([f"bearer {good}"])
    assert "JWT" == door.scheme.http_auth_security_scheme.bearer_format


@pytest.mark.parametrize(
    "credentials",
    [
        [],
        [""],
        ["Bearer"],
        ["Basic YW5uOmFubg=="],
        [f"Bearer {token()}", f"Bearer {token()}"],
        ["Bearer x.y.z"],
        ["Bearer " + "x" * 9000],
        ["Bearer é"],
        [f"Bearer {token(None, 'none')}"],
        [f"Bearer {confused()}"],
        [f"Bearer {token(SECRET, 'HS256', kid='secret')}"],
        [f"Bearer {token(SECRET, 'HS256', kid='odd')}"],
        [f"Bearer {token(kid='enc')}"],
        [f"Bearer {token(kid='odd')}"],
        [f"Bearer {token(kid='ed')}"],
        [f"Bearer {token(kid='other')}"],
        [f"Bearer {token(kid='')}"],
        [f"Bearer {token(STRANGER)}"],
        [f"Bearer {token(iss='https://other.example')}"],
        [f"Bearer {token(aud='other')}"],
        [f"Bearer {token(exp=time.time() - 60)}"],
        [f"Bearer {token(nbf=time.time() + 30_000)}"],
        *([f"Bearer {token(without=name)}"] for name in ("iss", "aud", "sub", "exp")),
        [f"Bearer {token(sub='')}"],
        [f"Bearer {token(sub='a' + chr(10))}"],
        ["Bearer odk_" + "x" * 43],
    ],
)
async def test_no_other_credential_opens_the_door(door, credentials):
    """`none`, a public key as a secret, a secret in the set, another key, issuer, audience, time."""
    with pytest.raises(Unauthenticated):
        await door.principal(credentials)


def test_of_a_set_of_keys_only_public_ones_that_sign_are_used():
    """And what is none is refused as a whole."""
    assert {"ec": "ES256", "ed": "EdDSA"} == {
        k: v.algorithm for k, v in usable(b"%b" % json.dumps(SET).encode()).items()
    }
    for text in (b"", b"[]", b"{}", b'{"keys": 1}'):
        with pytest.raises(ValueError):
            usable(text)


async def test_keys_are_fetched_once_and_after_a_failure_not_at_once(monkeypatch):
    """From a server that fails at first: nobody gets in, then all do, and it is not asked again."""
    asked, answers = [], [500, 302, 200]

    async def serve(request):
        asked.append(request.path)
        status = answers.pop(0)
        headers = {"Location": "/other"} if status == 302 else {}
        return web.Response(status=status, headers=headers, body=json.dumps(SET).encode())

    app = web.Application()
    app.router.add_get("/{name}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    keys = TokenKeys.at(f"http://127.0.0.1:{runner.addresses[0][1]}/keys")
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(jwks, "time", clock)
    try:
        for wait in (0.0, 1.1):  # the answer 500, and one that leads elsewhere
            clock.now += wait
            for _ in range(2):
                with pytest.raises(KeysUnavailable):
                    await keys.key("ec")
        clock.now += 2.1
        assert [True, True, False] == [await keys.key(k) is not None for k in ("ec", "ed", "x")]
        assert ["/keys"] * 3 == asked
        clock.now += refresh.FRESH_S  # the server is away by now: the keys stay
        await runner.cleanup()
        assert await keys.key("ec") is not None
    finally:
        await runner.cleanup()


@given(st.lists(st.tuples(st.floats(0, 5000), st.booleans(), st.booleans())))
def test_keys_are_fetched_when_it_is_due_and_no_more_often(asks):
    """After a failure it waits, twice as long each time; then an absent key id is asked for."""
    schedule, now, fetched, failures, failed = RefreshSchedule(), 0.0, None, 0, 0.0
    for wait, absent, works in asks:
        now += wait
        due = schedule.due(now, absent=absent)
        blocked = failures and now < failed + min(2 ** (failures - 1), refresh.LONGEST_S)
        fresh = refresh.AGAIN_S if absent else refresh.FRESH_S
        wanted = fetched is None or now - fetched >= fresh
        assert due is (wanted and not blocked)
        if due and works:
            schedule.fetched(now)
            fetched, failures = now, 0
        elif due:
            schedule.failed(now)
            failures, failed = failures + 1, now


def test_bearer_keys_are_kept_as_hashes_and_can_be_taken_back(tmp_path, monkeypatch):
    """A key is its principal's until its entry is gone; without a file nobody gets in."""
    monkeypatch.setattr(bearer_keys, "RELOAD_S", 0.0)
    path = tmp_path / "keys.json"
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    assert ann not in path.read_text()
    assert 0o600 == path.stat().st_mode & 0o777
    keys = BearerKeys(path)
    assert ["ann", "bob", None, None] == [keys.principal(k) for k in (ann, bob, ann[:-1], "")]
    path.write_text(json.dumps({"keys": json.loads(path.read_text())["keys"][1:]}))
    assert [None, "bob"] == [keys.principal(k) for k in (ann, bob)]
    path.unlink()
    assert keys.principal(bob) is None
    with pytest.raises(ProjectError, match="cannot read"):
        BearerKeys(path)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"host": "0.0.0.0"}, "asks for credentials"),
        ({"host": "10.0.0.1"}, "asks for credentials"),
        ({"host": "::"}, "asks for credentials"),
        ({"host": "gateway.example"}, "asks for credentials"),
        ({"jwks": "keys.json"}, "JWT_ISSUER"),
        ({"jwks": "http://issuer.example/keys", "jwt_issuer": "i", "jwt_audience": "a"}, "https"),
        ({"jwks": "keys.json", "jwt_issuer": "i", "jwt_audience": "a"}, "SIGNING_KEY"),
    ],
)
def test_a_gateway_that_would_let_anybody_in_does_not_start(given, match):
    """Nor one that knows its clients, and could not tell hosts who asks."""
    bus = BusSettings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(ProjectError, match=match):
        Gateway(GatewaySettings(**given), bus, trust=TrustSettings())
    assert ClientAuthenticator.of(GatewaySettings(host="localhost")) is None


async def through(door, *headers):
    """The answer of a door to a request."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://x") as http:
        return await http.get("/", headers=list(headers))


async def behind(scope, receive, send):
    answer = scope["user"].display_name or "anybody"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer.encode()})


async def test_the_door_answers_in_https_words(door):
    """401 with a challenge, 503 while keys cannot be fetched; two credentials are none."""

    async def away():
        raise OSError("away")

    admission = Admission(door, None)
    good = ("Authorization", f"Bearer {token()}")
    assert "jwt/ann" == (await through(Door(behind, admission), good)).text
    none = await through(Door(behind, admission))
    assert (401, 'Bearer realm="odradek"') == (none.status_code, none.headers["www-authenticate"])
    twice = await through(Door(behind, admission), good, good)
    assert (401, True) == (twice.status_code, "invalid_token" in twice.headers["www-authenticate"])
    tokens = TokenVerifier(TokenKeys(away, "away"), issuer=ISSUER, audience=AUDIENCE)
    closed = await through(Door(behind, Admission(ClientAuthenticator(None, tokens), None)), good)
    assert (503, "5") == (closed.status_code, closed.headers["retry-after"])


async def test_each_principal_has_a_rate_of_its_own(door):
    """The one that asks too often is told when it may again."""
    admission = Admission(door, RequestRates.of("2/minute"))
    ann, bob = (("Authorization", f"Bearer {token(sub=name)}") for name in ("ann", "bob"))
    answers = [await through(Door(behind, admission), who) for who in (ann, ann, ann, bob)]
    assert [200, 200, 429, 200] == [answer.status_code for answer in answers]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert RequestRates.of("") is None
    with pytest.raises(ProjectError, match="600/minute"):
        RequestRates.of("often")


@pytest.mark.broker
async def test_a_client_of_the_gateway_sees_its_own_tasks_and_no_others(stage, tmp_path):
    """The gateway signs for it, and the host verifies. Cards and health need no credentials."""
    gateways = TrustSettings(signing_key=written(tmp_path, "gateway", "key/*"))
    hosts = TrustSettings(verification_keys=tmp_path / "public", unsigned="refuse")
    await stage.host(ConformanceAgent(), training=False, trust=hosts)
    path = tmp_path / "bearer.json"
    keys = {name: add_key(path, name) for name in ("ann", "bob")}
    async with serving(stage.bus, trust=gateways, bearer_keys=path) as gateway:
        url = f"{gateway.address}/agents/player"
        async with httpx.AsyncClient(timeout=60) as http:
            card = (await http.get(f"{url}/.well-known/agent-card.json")).json()
            assert {"scheme": "Bearer"} == card["securitySchemes"]["bearer"][
                "httpAuthSecurityScheme"
            ]
            assert [{"schemes": {"bearer": {}}}] == card["securityRequirements"]
            assert 200 == (await http.get(f"{gateway.address}/healthz")).status_code
            for closed in (f"{gateway.address}/agents", f"{url}/v1/tasks", f"{url}/v1/x/tasks",
                           f"{url}/v1/tasks/.well-known/agent-card.json"):  # fmt: skip
                assert 401 == (await http.get(closed)).status_code
            assert 401 == (await http.post(url, json={})).status_code

            def asks(name):
                return {"Authorization": f"Bearer {keys[name]}", "A2A-Version": "1.0"}

            body = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "x"}]}}
            sent = await http.post(f"{url}/v1/message:send", json=body, headers=asks("ann"))
            task = sent.json()["task"]["id"]
            seen = [
                (await http.get(f"{url}/v1/tasks/{task}", headers=asks(name))).status_code
                for name in ("ann", "bob")
            ]
            assert [200, 404] == seen
            listed = await http.get(f"{url}/v1/tasks", headers=asks("bob"))
            assert [] == listed.json()["tasks"]
    (record, *_) = await stage.read("a2a.tasks.player")
    assert b"key/ann" == dict(record.headers)["a2a-principal"]
