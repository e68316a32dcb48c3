"""Who may call: every route of the proxy against every credential that is not good enough.

The routes come from the application, so one without a rule fails here.
"""

import asyncio
import json
import time
from urllib.parse import quote

import pytest
from aiohttp import ClientSession

from odradek.infra.runtime.episode_tokens import AUDIENCE, Claims, mint, new_key
from odradek.proxy.app import Proxy
from tests.support.proxy.proxy_bench import KEY

BODY = {
    "model": "m",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "x"}],
    "prompt": "x",
    "input": "x",
    "contents": [{"parts": [{"text": "x"}]}],
}
"""A request of any dialect."""
RULES = {
    "/healthz": "open",
    "/readyz": "open",
    "/{rest}": "missing",
    "/e/{episode}/seal": "host",
}
"""What a route asks for; one that is not named here is a call."""
CALLS = (
    "/e/{episode}/v1/", "/e/{episode}/", "/v1/", "/t/{token}/v1/", "/t/{token}/", "/v1beta/",
    "/v1alpha/",
)  # fmt: skip
"""Where calls may live: an episode or a token is in the path, or else in the token alone."""


def routes(proxy: Proxy) -> list[tuple[str, str]]:
    """Method and path of every route; HEAD comes along with each GET."""
    return sorted(
        {
            (route.method, route.resource.canonical)
            for route in proxy.application().router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    )


def credentials():
    """Name: (headers, token for the path, status on a call of e1, status on the seal of e1)."""
    good = mint(Claims(sub="e1"), [KEY])
    host = mint(Claims(sub="*", scope="host"), [KEY])
    sealed = mint(Claims(sub="sealed"), [KEY])

    def bearer(token, call=401, seal=401):
        return [("Authorization", f"Bearer {token}")], token, call, seal

    return {
        "no token": ([], "", 401, 401),
        "expired": bearer(mint(Claims(sub="e1", exp=time.time() - 5), [KEY])),
        "another episode's": bearer(mint(Claims(sub="e2"), [KEY]), 403, 403),
        "a prefix of the episode's name": bearer(mint(Claims(sub="e"), [KEY]), 403, 403),
        "any episode, without being a host": bearer(mint(Claims(sub="*"), [KEY]), 403, 403),
        "another tenant's": bearer(mint(Claims(sub="e1"), [new_key()])),
        "of a key taken out of rotation": bearer(mint(Claims(sub="e1"), ["r" * 32])),
        "revoked: its episode is sealed": bearer(sealed, 403, 403),
        "a host's, for a call; an agent's, for a seal": bearer(host, 403, 200),
        "a prefix of a good one": bearer(good[:-3]),
        "a good one and more": bearer(good + "x"),
        "only its claims": bearer(good.rsplit(".", 1)[0] + "."),
        "unsigned": bearer(unsigned()),
        "SQL": bearer("' OR 1=1 --"),
        "header metacharacters": bearer('a,b;c="d"\\e'),
        "NUL": bearer("a\0b", 400, 400),
        "a line break": bearer("a\r\nX-Agent-ID: b", 401, 401),
        "1 MB": bearer("x" * 2**20, 400, 400),
        "two Authorization headers": (
            [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")],
            "", 401, 401,
        ),
        "two tokens that differ": (
            [("Authorization", f"Bearer {good}"), ("x-api-key", host)], "", 401, 401,
        ),
        "two tokens that differ, of other makers": (
            [("x-goog-api-key", good), ("x-api-key", host)], "", 401, 401,
        ),
        "the same header of Google's twice": (
            [("x-goog-api-key", good), ("x-goog-api-key", good)], "", 401, 401,
        ),
        "another scheme": ([("Authorization", f"Basic {good}")], "", 401, 401),
        "a cookie": ([("Cookie", f"token={good}")], "", 401, 401),
    }  # fmt: skip


def unsigned():
    """`alg: none`."""
    import jwt

    claims = {"sub": "e1", "aud": AUDIENCE, "exp": time.time() + 60}
    return jwt.encode(claims, None, algorithm="none")


async def ask(url: str, method: str, path: str, headers: list[tuple[str, str]], body=BODY) -> int:
    """The status of a request that no client of ours has tidied up; 0: no answer at all."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += ["Content-Type: application/json", f"Content-Length: {len(data)}", "", ""]
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write("\r\n".join(lines).encode() + data)
        answer = await reader.read()
    except ConnectionError:
        return 0
    finally:
        writer.close()
    return int(answer.split()[1]) if answer else 0


@pytest.mark.parametrize("name", list(credentials()))
async def test_every_route_refuses_every_credential_that_is_not_good_enough(bench, engine, name):
    """With its own status each, and no call reaches the engine."""
    await bench.ask()  # a good token is known by now
    await bench.ask(episode="sealed")
    await bench.seal("sealed")
    before = len(engine.calls)
    headers, in_path, call, seal = credentials()[name]
    found = routes(bench.proxy)
    assert len(found) >= 15
    for method, path in found:
        rule = RULES.get(path, "call")
        if rule in ("open", "missing"):
            continue
        assert rule == "host" or path.startswith(CALLS), f"{path} has no rule"
        address = path.replace("{episode}", "e1").replace("{model}", "m")
        if "{token}" in path:
            if not in_path:
                continue
            address = address.replace("{token}", quote(in_path, safe=""))
        wanted = seal if rule == "host" else call
        if "{episode}" not in path and wanted == 403 and scope_of(in_path) == "call":
            continue  # here it opens its own episode
        if rule == "host" and seal == 200:
            continue
        said = await ask(bench.url, method, address, [] if "{token}" in path else headers)
        if "{token}" in path and len(in_path) > 8000:
            wanted = 400  # not even a request line
        assert refused(said, wanted), f"{method} {path}: {said}"
    assert len(engine.calls) == before


def scope_of(token: str) -> str:
    """What a token's claims say, without holding them against anything."""
    import jwt

    return jwt.decode(token, options={"verify_signature": False})["scope"]


def refused(said: int, wanted: int) -> bool:
    """Whether a status is the wanted one; what is no HTTP may also be a closed connection."""
    return said == wanted or (wanted == 400 and said in (0, 400, 401, 431))


async def test_a_route_of_another_kind_would_fail_the_test_above(bench):
    """The rule table and the application agree: nothing in it is stale either."""
    known = {path for _, path in routes(bench.proxy)}
    assert set(RULES) <= known


@pytest.mark.parametrize("where", ["bearer", "x-api-key", "x-goog-api-key", "path"])
async def test_a_good_token_opens_its_episode_from_each_of_its_places(bench, where):
    """And the turn stands in the episode that the token names."""
    token = bench.token("e1")
    headers = {
        "bearer": {"Authorization": f"Bearer {token}"},
        "x-api-key": {"x-api-key": token},
        "x-goog-api-key": {"x-goog-api-key": token},
    }
    root = f"/t/{token}/v1" if where == "path" else "/v1"
    sent = headers.get(where, {"Authorization": "Bearer sk-made-up", "x-api-key": "y"})
    status, _, _ = await bench.post(f"{root}/chat/completions", BODY, headers=sent)
    assert status == 200
    assert len(bench.turns("e1")) == 1


async def test_a_sealed_episodes_token_opens_nothing(bench, engine):
    """409 from now on, from each of the three places, until it has expired anyway."""
    await bench.ask()
    await bench.seal()
    token = bench.token("e1")
    before = len(engine.calls)
    for path, headers in (
        ("/e/e1/v1/chat/completions", {"Authorization": f"Bearer {token}"}),
        ("/v1/chat/completions", {"x-api-key": token}),
        (f"/t/{token}/v1/chat/completions", {}),
    ):
        assert (await bench.post(path, BODY, headers=headers))[0] == 409
    count = await bench.post("/v1/messages/count_tokens", BODY, headers={"x-api-key": token})
    assert count[0] == 409
    async with ClientSession(headers={"x-api-key": token}) as session:
        async with session.get(f"{bench.url}/v1/models") as models:
            assert models.status == 409
    assert len(engine.calls) == before


async def test_no_method_gets_around_the_rules(bench):
    """Every method that HTTP knows, and one that it does not, on every path: no other answer."""
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X")
    own = {(method, path) for method, path in routes(bench.proxy) if method != "*"}
    for path in {path for _, path in routes(bench.proxy)} - {"/{rest}"}:
        address = path.format(episode="e1", model="m", token="x")
        for method in methods:
            said = await ask(bench.url, method, address, [("X-HTTP-Method-Override", "POST")])
            answered = (method, path) in own or (method == "HEAD" and ("GET", path) in own)
            # A model's name may hold a colon: so this is one of the models to a GET.
            answered = answered or (method in {"GET", "HEAD"} and "{model}:" in path)
            if (method, path) in own and RULES.get(path) == "open":
                assert said == 200
            else:
                # TRACE and CONNECT are refused by the server itself.
                assert said in ({401, 404} if answered else {400, 404, 405}), f"{method} {path}"


async def test_an_agent_id_that_disagrees_with_the_token_is_refused_and_counted(bench):
    """Identity comes from the token; the header only speaks where the token is silent."""
    path = "/e/e1/v1/chat/completions"
    named = {"X-Agent-ID": "hilo"}
    other = await bench.post(path, BODY, token=bench.token(agent="coder"), headers=named)
    assert other[0] == 403
    assert bench.proxy.refused["forbidden"] == 1
    assert not bench.turns()
    for token in (bench.token(agent="hilo"), bench.token()):
        assert (await bench.post(path, BODY, token=token, headers=named))[0] == 200
    assert ["hilo", "hilo"] == [turn.agent for turn in bench.turns()]


async def test_a_token_binds_its_model(bench, engine):
    """Whatever the request names; trajectory content chooses no model."""
    token = bench.token(model="policy")
    assert (await bench.post("/v1/chat/completions", BODY, token=token))[0] == 200
    assert [call["model"] for call in engine.calls] == ["policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "169.254.169.254"},
        {"Host": "evil.example:1@127.0.0.1"},
        {"X-Forwarded-Host": "evil", "X-Forwarded-Proto": "https", "Forwarded": "host=evil"},
        {"X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"},
    ],
)
async def test_the_host_header_decides_nothing(bench, headers):
    """CVE-2026-48710: an address built from Host. Same answer, same engine, and nobody echoes it."""
    token = bench.token()
    status, answered, body = await bench.post(
        "/e/e1/v1/chat/completions", BODY, token=token, headers=headers
    )
    assert status == 200
    missing = await bench.post("/nowhere", BODY, token=token, headers=headers)
    assert missing[0] == 404
    for text in (*answered.values(), body.decode(), *missing[1].values(), missing[2].decode()):
        assert not any(value in text for value in headers.values() if value != "https")


async def test_a_token_cache_is_keyed_by_the_whole_token(bench):
    """CVE-2026-35030: one that shares its beginning with a known token is another token."""
    good = bench.token()
    path = "/e/e1/v1/chat/completions"
    assert (await bench.post(path, BODY, token=good))[0] == 200
    head, claims, signature = good.split(".")
    forged = mint(Claims(sub="e1", agent="admin"), ["f" * 32]).split(".")[1]
    for token in (
        good[:20],
        good[:-1],
        good + "A",
        f"{head}.{claims}.",
        f"{head}.{forged}.{signature}",
    ):
        assert (await bench.post(path, BODY, token=token))[0] == 401


async def test_a_token_in_the_path_is_told_to_nobody(bench, caplog):
    """No log line, no error text, no record holds it: only the request line of the client."""
    token = bench.token()
    for path in (
        f"/t/{token}/v1/chat/completions",
        f"/t/{token}/v1/nothing",
        f"/t/{token}x/v1/models",
    ):
        _, headers, body = await bench.post(path, BODY)
        assert token[-20:] not in body.decode() + str(headers)
    assert token[-20:] not in caplog.text
    for record in bench.log.records:
        assert token[-20:].encode() not in bytes(record.value) + repr(record.headers).encode()


async def test_ready_and_healthy_tell_no_secret(make):
    """They are open to all, so they hold counts and states only."""
    async with make(engine_key="sk-engine-secret") as bench, ClientSession() as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(bench.url + path) as answer:
                assert "sk-engine-secret" not in await answer.text()
