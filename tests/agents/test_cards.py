"""Agents' cards: what their owners say, who signed them, and who is there."""

import asyncio
import base64
import json

import jwt
import pytest
from a2a.types import AgentCard, AgentCardSignature, GetExtendedAgentCardRequest
from a2a.utils.errors import InvalidRequestError
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from odradek.agents.cards.card import accepted, card
from odradek.agents.cards.profile import profile_of, read_profile
from odradek.agents.cards.registry import all_cards
from odradek.agents.cards.signatures import CardSigner, read_keys, standing
from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.gateway.app import GatewayApp
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.app.cli.look.agents import command
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError
from tests.support.agents.conformance_agent import ConformanceAgent

WHOLE = {
    "name": "Hi-Lo",
    "description": "Guesses numbers.",
    "version": "2.1",
    "provider": {"organization": "Odradek", "url": "https://example.org"},
    "skills": [{"id": "guess", "name": "guess", "description": "Guesses.", "tags": ["game"]}],
    "defaultInputModes": ["text/plain", "image/*"],
    "defaultOutputModes": ["application/json"],
    "documentationUrl": "https://example.org/docs",
    "iconUrl": "https://example.org/icon.png",
}


def jwk(folder, kid, kind="Ed25519", **more):
    """The files of a fresh private key and of its public one."""
    if kind == "Ed25519":
        key, made = ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm.to_jwk
    else:
        key, made = ec.generate_private_key(ec.SECP256R1()), ECAlgorithm.to_jwk
    private, public = folder / f"{kid}.json", folder / "public" / f"{kid}.json"
    public.parent.mkdir(exist_ok=True)
    private.write_text(json.dumps({**made(key, as_dict=True), "kid": kid, **more}))
    shared = made(key.public_key(), as_dict=True)
    public.write_text(json.dumps({**shared, "kid": kid, **more}))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Signers of two kinds, and everybody's public keys."""
    folder = tmp_path_factory.mktemp("keys")
    private = {kind: jwk(folder, kind, kind)[0] for kind in ("Ed25519", "P-256")}
    jwk(folder, "other", principals=["hilo-*"])
    signers = {kind: CardSigner.from_file(file) for kind, file in private.items()}
    signers["other"] = CardSigner.from_file(folder / "other.json")
    return signers, read_keys(folder / "public")


def test_the_owners_fields_stand_on_the_card_beside_what_is_served():
    """Written as JSON or TOML."""
    made = card("hilo", prefix="p.", profile=profile_of(WHOLE))
    assert ("Hi-Lo", "2.1", "Odradek") == (made.name, made.version, made.provider.organization)
    assert ["guess"] == [skill.id for skill in made.skills]
    assert "kafka:///p./hilo" == made.supported_interfaces[0].url
    assert made.capabilities.streaming


def test_a_file_of_toml_is_read_as_one_of_json(tmp_path):
    """By its name."""
    (tmp_path / "card.toml").write_text(
        'version = "3"\n[provider]\norganization = "O"\nurl = "https://o.example"\n'
    )
    (tmp_path / "card.json").write_text(
        '{"version": "3", "provider": {"organization": "O", "url": "https://o.example"}}'
    )
    assert read_profile(tmp_path / "card.json") == read_profile(tmp_path / "card.toml")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ([], "a card is an object"),
        ({"url": "http://a"}, "'url' is not for this file"),
        ({"supportedInterfaces": [3]}, "what the agent serves is filled in"),
        ({"name": 3}, "no A2A AgentCard"),
        ({"name": ""}, "'name' is empty"),
        ({"skills": [{"id": "a"}]}, "A2A requires .*name"),
        ({"provider": {"organization": "a"}}, "A2A requires .*url"),
        ({"provider": {"organization": "a", "url": "a.com"}}, "provider.url 'a.com'"),
        ({"defaultInputModes": ["text"]}, "'text' is no media type"),
        ({"iconUrl": "javascript:alert(1)"}, "iconUrl .* is no address"),
        ({"documentationUrl": "http://[a"}, "documentationUrl .* is no address"),
        ({"skills": WHOLE["skills"] * 2}, "two skills have the same id"),
    ],
    ids=str,
)
def test_a_card_that_cannot_be_is_refused_by_its_field(fields, match, tmp_path):
    """The error names file and field, and says what to write."""
    (tmp_path / "card.json").write_text(json.dumps(fields))
    with pytest.raises(ProjectError, match=match):
        read_profile(tmp_path / "card.json")


def test_a_file_that_is_none_is_said_in_one_line(tmp_path):
    """Absent, or neither JSON nor TOML."""
    (tmp_path / "card.toml").write_text("=")
    with pytest.raises(ProjectError, match="is no TOML"):
        read_profile(tmp_path / "card.toml")
    with pytest.raises(ProjectError, match="cannot read the agent's card"):
        read_profile(tmp_path / "absent.json")


def test_a_range_of_media_types_takes_each_in_it():
    """And none beside it."""
    assert accepted("image/png", ["text/plain", "image/*"])
    assert accepted("application/x-y", ["*/*"])
    assert not accepted("image/png", ["text/plain", "imag/*"])


@given(st.text(min_size=1), st.sampled_from(["Ed25519", "P-256"]))
def test_a_signature_holds_for_the_card_that_was_signed(keys, words, kind):
    """Whatever text it has; one changed character and it holds no more."""
    signers, public = keys
    made = card(
        "hilo", prefix="", profile=AgentCard(description=words.encode("utf-8", "replace").decode())
    )
    signed = signers[kind].signed(made)
    assert f"by {kind}" == str(standing("hilo", signed, public))
    signed = AgentCard.FromString(signed.SerializeToString())
    assert kind == standing("hilo", signed, public).kid
    signed.description += "."
    assert f"WRONG: not what {kind!r} signed" == str(standing("hilo", signed, public))


def compact(header, key, algorithm, payload):
    protected, _, signature = jwt.api_jws.encode(payload, key, algorithm, headers=header).split(".")
    return AgentCardSignature(protected=protected, signature=signature)


def test_no_algorithm_but_the_keys_own_counts(keys, tmp_path):
    """Not `none`, not a public key as a shared secret, no unknown key, none of another agent."""
    signers, public = keys
    made = card("hilo", prefix="")
    assert "unsigned" == str(standing("hilo", made, public))
    signed = signers["Ed25519"].signed(made)
    assert "WRONG: there is no key 'Ed25519'" == str(standing("hilo", signed, {}))
    others = signers["other"].signed(made)
    assert "WRONG: the key 'other' signs for other agents" == str(standing("hilo", others, public))
    assert "by other" == str(standing("hilo-2", others, public))
    from a2a.utils.signing import _canonicalize_agent_card

    payload = _canonicalize_agent_card(made).encode()
    header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"Ed25519"}').decode().rstrip("=")
    shared = b"k" * 32
    forged = [
        AgentCardSignature(protected=header, signature=""),
        compact({"kid": "Ed25519"}, shared, "HS256", payload),
        AgentCardSignature(protected="!", signature="x"),
        AgentCardSignature(protected="W10", signature="x"),
    ]
    for signature in forged:
        made.signatures.append(signature)
        assert standing("hilo", made, public).problem
    made.signatures.append(signed.signatures[0])
    assert "by Ed25519" == str(standing("hilo", made, public))


def test_the_gateway_signs_a_card_with_its_addresses_by_its_own_key(tmp_path):
    """Without a key the card is unsigned: the agent's signature is of another card."""
    private, public = jwk(tmp_path, "door")
    signed = CardSigner.from_file(private).signed(card("hilo", prefix=""))
    bus = BusSettings(bootstrap_servers="127.0.0.1:1")

    def shown(**more):
        app = GatewayApp(GatewaySettings(**more), bus, None, address="http://127.0.0.1")
        return app.handler("hilo")._shown(signed)

    assert "by door" == str(standing("hilo", shown(card_key=private), read_keys(public)))
    assert "unsigned" == str(standing("hilo", shown(), read_keys(public)))
    assert "http://127.0.0.1/agents/hilo" == shown().supported_interfaces[0].url


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "no JSON Web Key"),
        ('{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}', "with a kid"),
        ('{"kty": "oct", "k": "AAAA", "kid": "a"}', "'a' is not"),
        ('{"kty": "EC", "crv": "P-521", "x": "A", "y": "A", "kid": "a"}', "'a' is not"),
        ('{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "a"}', "'a' cannot be read"),
        ("[1]", "'this one' is not"),
    ],
)
def test_a_key_that_cannot_sign_cards_is_refused_by_its_file(text, match, tmp_path):
    """No shared secret, no other curve, none without an id; nor a public key to sign with."""
    file = tmp_path / "key.json"
    file.write_text(text)
    with pytest.raises(ProjectError, match=match):
        read_keys(file)


def test_a_public_key_signs_nothing(tmp_path):
    """Nor do two keys with one id tell who signed."""
    _, public = jwk(tmp_path, "a")
    with pytest.raises(ProjectError, match="holds no private key"):
        CardSigner.from_file(public)
    (tmp_path / "public" / "b.json").write_text(public.read_text())
    with pytest.raises(ProjectError, match="there twice"):
        read_keys(tmp_path / "public")


@pytest.mark.broker
async def test_the_registry_says_who_is_there(stage, tmp_path, monkeypatch):
    """Before the host, with it, and after the card was taken away."""
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", stage.bus.bootstrap_servers)
    monkeypatch.setenv("ODRADEK_TOPIC_PREFIX", stage.bus.topic_prefix)
    monkeypatch.setenv("ODRADEK_TOPIC_PARTITIONS", str(stage.bus.topic_partitions))
    private, public = jwk(tmp_path, "k1")
    (tmp_path / "card.json").write_text(json.dumps(WHOLE))

    async def agents(*arguments, code=0):
        ran = await asyncio.to_thread(CliRunner().invoke, command, arguments)
        assert code == ran.exit_code, (ran.output, ran.exception)
        return json.loads(ran.stdout) if "--json" in arguments else ran.output

    files = "--card", str(tmp_path / "card.json"), "--sign-with", str(private)
    await agents("publish", "player", *files)
    await stage.send("m1")
    shown = await agents("show", "player", "--json", "--keys", str(public.parent))
    assert ([], 1, "k1") == (shown["hosts"], shown["lag"], shown["signed_by"])
    assert ("Hi-Lo", "kafka") == (
        shown["card"]["name"],
        shown["card"]["supportedInterfaces"][0]["url"][:5],
    )
    assert "WRONG" in await agents("show", "player")
    host = await stage.host(ConformanceAgent(), training=False)

    async def caught_up():
        (row,) = (await agents("list", "--json"))["agents"]
        return row if row["lag"] == 0 else None

    row = await stage.until(caught_up)
    assert (1, "unsigned") == (len(row["hosts"]), row["signature"])
    assert "stop them first" in await agents("remove", "player", code=1)
    await stage.stop(host)
    await agents("remove", "player")
    assert [] == (await agents("list", "--json"))["agents"]
    assert "has a card" in await agents("show", "player", code=1)
    assert None is (await stage.read("a2a.cards"))[-1].value


@pytest.mark.broker
async def test_the_extended_card_is_for_callers_who_sign(stage, tmp_path):
    """It is signed as the public one is, and the public one says that it is there."""
    private, public = jwk(tmp_path, "k1", principals=["player", "ann"])
    (tmp_path / "more.toml").write_text('description = "All of it."')
    trust = TrustSettings(verification_keys=public.parent, unsigned="accept")
    await stage.host(
        ConformanceAgent(),
        trust=trust,
        training=False,
        card_key=private,
        extended_card=tmp_path / "more.toml",
    )
    request = GetExtendedAgentCardRequest()
    async with (
        KafkaConnection(stage.bus, trust=TrustSettings(signing_key=private)) as anns,
        KafkaConnection(stage.bus, trust=TrustSettings()) as nobodys,
    ):
        more = await KafkaTransport(anns, "player", timeout_s=60).get_extended_agent_card(request)
        with pytest.raises(InvalidRequestError, match="who sign"):
            await KafkaTransport(nobodys, "player", timeout_s=60).get_extended_agent_card(request)
    known = (await all_cards(stage.bus))["player"].card
    assert ("All of it.", True) == (more.description, known.capabilities.extended_agent_card)
    assert known.description != more.description
    for shown in (more, known):
        assert "by k1" == str(standing("player", shown, read_keys(public)))
