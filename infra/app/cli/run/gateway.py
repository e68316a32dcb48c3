"""`odradek gateway`: agents behind plain HTTP."""

import click

from odradek.infra.app.cli.options import given


@click.command()
@click.option("--host", help="The address to listen on.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on.  [8500]")
def command(host: str | None, port: int | None) -> None:
    """Serve every agent on the bus over HTTP, for any A2A client.

    An agent NAME is at /agents/NAME: its card at /agents/NAME/.well-known/agent-card.json, JSON-RPC
    at the address itself, and REST below /v1. /agents lists all. Streams are server-sent events.
    ODRADEK_GATEWAY_GRPC_PORT serves gRPC as well (`pip install odradek[a2a-grpc]`).

    \b
    odradek gateway --port 8500
    curl http://127.0.0.1:8500/agents/hilo/.well-known/agent-card.json

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS, and `pip install odradek[a2a]`. On another address than
    loopback it asks for credentials: bearer keys (`odradek keys bearer NAME`,
    ODRADEK_GATEWAY_BEARER_KEYS) or JSON Web Tokens (ODRADEK_GATEWAY_JWKS). Cards and /healthz need
    none.
    """  # noqa: D301 - click reads the backslash
    from odradek.agents.gateway.server import run
    from odradek.agents.settings import GatewaySettings
    from odradek.infra.bus import BusSettings
    from odradek.infra.runtime import process

    process.run("gateway", run(GatewaySettings(**given(host=host, port=port)), BusSettings()))
