"""The engine's surface in print is the one that the code has."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from odradek.infra.app.cli import main
from odradek.schemas.http import contract, engine

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"
MARKS = re.compile(r"<!-- contract: .* -->\n(.*)<!-- end of the contract -->", re.DOTALL)


def printed(*options):
    done = CliRunner().invoke(main, ["engine", "contract", *options])
    assert 0 == done.exit_code, done.output
    return done.output


def test_the_page_holds_what_the_command_prints():
    """`odradek engine contract` between the two marks of docs/engines.md brings it up to date."""
    assert printed() == MARKS.search(PAGE.read_text())[1]


def refs(value):
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)


def test_the_document_has_every_route_and_every_type_that_it_names():
    """OpenAPI 3.1: a client can be made of it."""
    import json

    made = json.loads(printed("--json"))
    assert "3.1.0" == made["openapi"]
    assert {route.path for route in engine.ROUTES} == made["paths"].keys()
    named = {ref.rpartition("/")[2] for ref in refs(made)}
    assert set() == named - made["components"]["schemas"].keys()


def test_every_capability_says_what_its_lack_costs():
    """One that cannot be explained in a line should not exist."""
    assert set(engine.Capability) == engine.CAPABILITIES.keys()
    assert all(terms.about and terms.cost for terms in engine.CAPABILITIES.values())


def test_what_is_missing_is_said_in_one_line():
    """What is lacking, what it costs, what to do."""
    missing = engine.MissingCapability(engine.Capability.COUNTING, "ask another engine")
    assert "no counting: agents that ask for a count get an error; ask another engine" == str(
        missing
    )


@pytest.mark.parametrize("kind", contract.types(), ids=lambda kind: kind.__name__)
def test_every_type_says_what_it_is(kind):
    """Its docstring is its line on the page, and its fields are those that it has."""
    assert len(contract.about(kind).split()) > 3
    assert list(kind.__struct_fields__) == [name for name, _, _ in contract.fields_of(kind)]
