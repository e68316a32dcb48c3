"""Webhooks lead outwards only: the corpus of addresses that look inwards, at registration and at connection."""

import ipaddress

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from odradek.agents.errors import WebhookRefused
from odradek.agents.push.addresses import WebhookRules, public
from odradek.agents.push.resolver import VettedResolver
from odradek.agents.settings import AgentSettings

BROKERS = "kafka-1:9092,kafka-2:19092"
REFUSED = {
    # loopback, in every spelling
    "http://127.0.0.1/": "address_forbidden", "http://127.8.9.10/": "address_forbidden",
    "http://localhost/": "address_forbidden", "http://LOCALHOST./": "address_forbidden",
    "http://a.localhost:8080/": "address_forbidden", "http://[::1]/": "address_forbidden",
    "http://[0:0:0:0:0:0:0:1]/": "address_forbidden", "http://0.0.0.0/": "address_forbidden",
    "http://[::]/": "address_forbidden", "http://127.1/": "bad_url", "http://2130706433/": "bad_url",
    "http://0x7f000001/": "bad_url", "http://0x7f.0.0.1/": "bad_url", "http://0177.0.0.1/": "bad_url",
    "http://017700000001/": "bad_url", "http://127.0.0.1.:80/": "address_forbidden",
    "http://0/": "bad_url", "http://0x/": "bad_url",
    # link-local, and clouds' metadata
    "http://169.254.169.254/latest/meta-data/": "address_forbidden",
    "http://[fe80::1]/": "address_forbidden", "http://[fd00:ec2::254]/": "address_forbidden",
    # private, shared and reserved
    "http://10.0.0.1/": "address_forbidden", "http://172.16.0.1/": "address_forbidden",
    "http://172.31.255.255/": "address_forbidden", "http://192.168.1.1/": "address_forbidden",
    "http://100.64.0.1/": "address_forbidden", "http://192.0.2.1/": "address_forbidden",
    "http://198.18.0.1/": "address_forbidden", "http://224.0.0.1/": "address_forbidden",
    "http://255.255.255.255/": "address_forbidden", "http://240.0.0.1/": "address_forbidden",
    "http://[fc00::1]/": "address_forbidden", "http://[fec0::1]/": "address_forbidden",
    "http://[ff02::1]/": "address_forbidden", "http://[2001:db8::1]/": "address_forbidden",
    # IPv4 inside IPv6
    "http://[::ffff:127.0.0.1]/": "address_forbidden", "http://[::ffff:7f00:1]/": "address_forbidden",
    "http://[::ffff:10.0.0.1]/": "address_forbidden", "http://[::127.0.0.1]/": "address_forbidden",
    "http://[64:ff9b::7f00:1]/": "address_forbidden", "http://[64:ff9b::a9fe:a9fe]/": "address_forbidden",
    "http://[2002:7f00:1::]/": "address_forbidden", "http://[64:ff9b:1::1]/": "address_forbidden",
    # somebody else's host before or behind a sign
    "http://example.com@127.0.0.1/": "userinfo", "http://127.0.0.1@example.com/": "userinfo",
    "http://user:pw@example.com/": "userinfo", "http://example.com\\@127.0.0.1/": "bad_url",
    "http://example.com%00.a/": "bad_url", "http://127.0.0.1%2f.example.com/": "bad_url",
    "http://①②⑦.0.0.1/": "bad_url", "http://ex ample.com/": "bad_url", "http://example.com/\r\nX: y": "bad_url",
    "http://[::1%25lo]/": "bad_url", "http://[127.0.0.1]/": "bad_url", "http://:80/": "bad_url",
    "http:///x": "bad_url", "http://[::1/": "bad_url", "": "bad_url",
    # schemes and ports
    "file:///etc/passwd": "scheme_forbidden", "gopher://example.com/": "scheme_forbidden",
    "ftp://example.com/": "scheme_forbidden", "kafka://example.com:9092": "scheme_forbidden",
    "//example.com/": "scheme_forbidden", "example.com": "scheme_forbidden",
    "javascript:alert(1)": "scheme_forbidden", "http://example.com:0/": "port_forbidden",
    "http://example.com:22/": "port_forbidden", "http://example.com:25/": "port_forbidden",
    "http://example.com:9092/": "port_forbidden", "http://example.com:19092/": "port_forbidden",
    "http://example.com:99999/": "bad_url", "http://example.com:x/": "bad_url",
}  # fmt: skip
TAKEN = [
    "https://example.com/hook?x=1", "http://example.com", "https://example.com:8443/", "https://8.8.8.8/",
    "https://[2606:4700::1111]/", "https://xn--bcher-kva.example/", "https://example.com./",
    "https://1.example.com/", "https://7-eleven.com/",
]  # fmt: skip


@pytest.mark.parametrize(("url", "reason"), REFUSED.items())
def test_what_looks_inwards_is_refused_as_it_is_registered(url, reason):
    """Without asking a resolver."""
    with pytest.raises(WebhookRefused) as refused:
        WebhookRules(brokers=BROKERS).check(url)
    assert reason == refused.value.reason


@pytest.mark.parametrize("url", TAKEN)
def test_a_webhook_of_the_public_internet_is_taken(url):
    """By name or by address."""
    assert WebhookRules(brokers=BROKERS).check(url).host in url


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/"),
        ("127.0.0.1", "http://localhost:8080/"),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:8080/"),
        ("::1, hooks.internal", "http://[::1]/"),
        ("10.1.0.0/16", "http://10.1.2.3/"),
        ("LOCALHOST", "http://localhost/"),
    ],
)
def test_webhook_hosts_is_the_way_to_an_address_that_is_not_public(hosts, url):
    """By name, address or network; and to no other one, nor to the broker."""
    rules = WebhookRules(hosts, BROKERS)
    rules.check(url)
    with pytest.raises(WebhookRefused):
        rules.check("http://10.2.0.1/")
    with pytest.raises(WebhookRefused, match="port"):
        rules.check("http://127.0.0.1:9092/")


@pytest.mark.parametrize("hosts", ["127.1", "a b", "http://a", "a:80", "10.0.0.0/99", "*"])
def test_a_list_of_hosts_that_means_something_else_is_refused(hosts):
    """As the settings are read."""
    with pytest.raises(ValueError, match="names, addresses and networks"):
        AgentSettings(webhook_hosts=hosts)


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_as_public_as_what_it_embeds(number):
    """An IPv4 address is judged the same inside every form of IPv6 that carries it."""
    plain = ipaddress.IPv4Address(number)
    forms = (f"::ffff:{plain}", str(ipaddress.IPv6Address((0x64FF9B << 96) | number)))
    assert {public(plain)} == {public(ipaddress.ip_address(form)) for form in forms}
    six = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))
    assert public(plain) or not public(six)


class Names(aiohttp.abc.AbstractResolver):
    """A name server whose answers change: the first is the one that was checked."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=0):
        listed = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            {"hostname": host, "host": each, "port": port, "family": 2, "proto": 6, "flags": 0}
            for each in listed
        ]

    async def close(self):
        pass


@pytest.mark.parametrize("later", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]])
async def test_a_name_that_points_elsewhere_later_is_refused_at_the_connection(later):
    """DNS rebinding: what was public when it was registered is asked for again, once a connection."""
    reached = []

    async def hook(request):
        reached.append(request)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    resolver = VettedResolver(WebhookRules(), Names(["93.184.216.34"], later))
    await resolver.check(f"http://rebinding.example:{port}/")
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as http:
        with pytest.raises(WebhookRefused):
            await http.post(f"http://rebinding.example:{port}/")
    await runner.cleanup()
    assert [] == reached


async def test_a_name_that_points_inwards_is_refused_and_an_unknown_one_is_not():
    """An unknown one is looked at again when it is called."""

    class Nobody(Names):
        async def resolve(self, host, port=0, family=0):
            raise OSError("no such name")

    with pytest.raises(WebhookRefused):
        await VettedResolver(WebhookRules(), Names(["10.0.0.1"])).check("http://a.example/")
    webhook = await VettedResolver(WebhookRules(), Nobody()).check("http://a.example/")
    assert ("http", "a.example", 80) == (webhook.scheme, webhook.host, webhook.port)
