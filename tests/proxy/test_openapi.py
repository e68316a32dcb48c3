"""The document that clients and fuzzers read, made from the routes and the types."""

from click.testing import CliRunner
from msgspec import json

from odradek.infra.app.cli.run.proxy import command


def test_every_route_is_in_the_document_with_what_it_takes():
    """A POST without a body's type would be an error; the catch-all is no route."""
    printed = CliRunner().invoke(command, ["--openapi"], catch_exceptions=False)
    document = json.decode(printed.output)
    paths = document["paths"]
    assert "/{rest}" not in paths
    for root in ("/v1", "/e/{episode}/v1", "/t/{token}/v1"):
        for end in ("chat/completions", "completions", "messages", "responses"):
            operation = paths[f"{root}/{end}"]["post"]
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert schema["$ref"].rsplit("/", 1)[1] in document["components"]["schemas"]
            assert root.count("{") == len(operation["parameters"])
    assert "post" in paths["/e/{episode}/seal"]
