"""Whose requests the console answers, and where it listens."""

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.console.access import Access, Visit, host_named
from odradek.infra.app.console.settings import ConsoleSettings
from odradek.infra.errors import ConsoleMisconfigured, VisitRefused

TOKEN = "t" * 32
OPEN = Access(frozenset({"127.0.0.1", "localhost", "::1"}))
CLOSED = Access(frozenset({"console.example.org"}), TOKEN)
ELSEWHERE = {"host": "10.0.0.5", "token": TOKEN, "certificate": "c.pem", "key": "k.pem"}


def status(access, **visit):
    """Of the refusal; 200 where there is none."""
    try:
        access.check(Visit(**visit))
    except VisitRefused as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("expected", "visit"),
    [
        (200, {"host": "127.0.0.1:8600"}),
        (200, {"host": "LOCALHOST"}),
        (200, {"host": "[::1]:8600"}),
        (200, {"host": "localhost:1", "origin": "http://localhost:1", "site": "same-origin"}),
        (
            200,
            {
                "host": "localhost",
                "site": "cross-site",
                "mode": "navigate",
                "destination": "document",
            },
        ),
        (421, {"host": ""}),
        (421, {"host": "localhost.evil.example"}),
        (421, {"host": "evil.example@localhost"}),
        (421, {"host": "localhost/"}),
        (421, {"host": "localhost:port"}),
        (403, {"host": "localhost", "origin": "null"}),
        (403, {"host": "localhost", "origin": "http://localhost:1"}),
        (403, {"host": "localhost", "origin": "https://localhost"}),
        (
            403,
            {
                "host": "localhost",
                "site": "cross-site",
                "mode": "navigate",
                "destination": "iframe",
            },
        ),
        (403, {"host": "localhost", "site": "same-site", "mode": "cors"}),
        (405, {"host": "localhost", "method": "POST"}),
        (405, {"host": "localhost", "method": "OPTIONS"}),
    ],
)
def test_a_request_is_answered_or_refused(expected, visit):
    """By its host, its site and its method."""
    assert expected == status(OPEN, **visit)


@pytest.mark.parametrize(
    ("expected", "header"),
    [
        (401, ""),
        (401, "Bearer"),
        (401, f"Bearer {TOKEN}x"),
        (401, f"Digest {TOKEN}"),
        (401, "Basic !!!"),
        (401, f"Basic {b64encode(TOKEN.encode()).decode()}"),
        (200, f"bearer {TOKEN}"),
        (200, f"Basic {b64encode(f'anyone:{TOKEN}'.encode()).decode()}"),
    ],
)
def test_the_token_opens_and_nothing_else_does(expected, header):
    """As Bearer, or as the password that a browser asks for."""
    assert expected == status(CLOSED, host="console.example.org", authorization=header)


@settings(max_examples=30)
@given(header=st.text(max_size=40))
def test_no_header_of_a_host_is_too_strange(header):
    """It names a host or none, and ours only where it is spelled so."""
    if host_named(header) == "localhost":
        assert header.lower().strip().split(":")[0].strip("\t\r\n") == "localhost"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "10.0.0.5"}, "without a token"),
        ({"host": "10.0.0.5", "token": TOKEN}, "without TLS"),
        ({"host": "console.example.org", "token": TOKEN}, "without TLS"),
        (ELSEWHERE | {"host": "0.0.0.0"}, "ODRADEK_CONSOLE_NAMES"),
        (ELSEWHERE | {"host": "::"}, "ODRADEK_CONSOLE_NAMES"),
        ({"token": "short"}, "openssl rand -hex 32"),
        ({"certificate": "c.pem"}, "ODRADEK_CONSOLE_KEY"),
    ],
)
def test_a_console_that_would_be_open_to_others_does_not_start(settings, says):
    """One line says what to set; no token is in it."""
    with pytest.raises(ConsoleMisconfigured, match=says) as caught:
        ConsoleSettings(**settings).check()
    assert "short" not in str(caught.value)


def test_hosts_are_those_that_lead_here():
    """Loopback by its names; another address by itself, and by names that were given."""
    named = ConsoleSettings(**ELSEWHERE, names="Console.Example.org, b")
    named.check()
    ConsoleSettings().check()
    assert {"127.0.0.1", "localhost", "::1"} == ConsoleSettings().callable_by
    assert {"10.0.0.5", "console.example.org", "b"} == named.callable_by
