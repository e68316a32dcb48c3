"""docs/a2a-kafka-binding.md against the code that it describes."""

import re
from pathlib import Path

import pytest

from odradek.agents.binding import BINDING, VERSION, headers, requests
from odradek.agents.binding.operations import OPERATIONS
from odradek.agents.trust import assertion
from odradek.schemas.topics import AGENT_TOPICS, CARDS, CLIENT_TOPICS, MB

TEXT = (Path(__file__).parents[2] / "docs" / "a2a-kafka-binding.md").read_text()


def table(heading, number=0):
    """The rows of a table below a heading, cell by cell, without back ticks."""
    part = TEXT.split(f"\n## {heading}\n", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    tables = re.findall(r"(?:^\|.*\n)+", part, flags=re.MULTILINE)
    rows = tables[number].splitlines()
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_its_headers_are_those_that_are_written_and_read():
    """Each once."""
    reserved = {
        value
        for name, value in vars(headers).items()
        if name.isupper() and isinstance(value, str) and value not in {headers.PREFIX, VERSION}
    }
    assert reserved == {row[0] for row in table("2. Headers")}


def test_its_operations_are_those_of_the_table():
    """With the messages that they carry, and what their key is."""
    listed = {row[0]: row[1:3] for row in table("3. Operations")}
    assert {
        name: [row.request.DESCRIPTOR.name, row.response.DESCRIPTOR.name]
        for name, row in OPERATIONS.items()
    } == listed
    by_task = {row[0] for row in table("3. Operations") if row[3] == "task id"}
    assert {name for name, row in OPERATIONS.items() if row.task and "." not in row.task} == by_task


def test_its_claims_and_reasons_are_those_of_the_code():
    """What is signed, and why a request is refused."""
    claims = {name for row in table("8. Security", 0) for name in re.findall(r"\w+", row[0])}
    assert set(assertion.AssertionClaims.__struct_fields__) == claims
    trust = Path(assertion.__file__).parent
    code = "".join(path.read_text() for path in trust.glob("*.py"))
    reasons = re.findall(r"AssertionRefused\(\s*\"(\w+)\"", code)
    assert set(reasons) == {row[0] for row in table("8. Security", 1)}
    assert f"more than {assertion.LONGEST_S:g} s" in TEXT
    assert f"more than {assertion.LEEWAY_S:g} s before" in TEXT
    assert f"`{assertion.TYPE}`" in TEXT


def test_its_topics_are_those_that_hosts_and_clients_have():
    """All of them."""
    topics = {row.name for row in (*AGENT_TOPICS, *CLIENT_TOPICS, CARDS)}
    assert topics == {row[0] for row in table("1. Topics")}


@pytest.mark.parametrize("constant", [BINDING, VERSION, f"{requests.LARGEST // MB} MiB"])
def test_its_constants_are_the_codes(constant):
    """Identifier, version and the largest value."""
    assert re.search(rf"(`|of more than ){re.escape(constant)}", TEXT)
