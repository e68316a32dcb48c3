"""`odradek proxy`: records every model call between agents and the engine."""

from typing import TYPE_CHECKING, Any

import click

from odradek.infra.app.cli.options import given

if TYPE_CHECKING:
    from odradek.proxy.settings import ProxySettings


@click.command()
@click.option("--host", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="On which port; 0 takes a free one.  [default: 8400]")
@click.option(
    "--engine-url",
    help="The inference engine; several: comma separated.  [default: $ODRADEK_ENGINE_URL]",
)
@click.option(
    "--durability",
    type=click.Choice(["required", "best_effort"]),
    help="A turn that Kafka does not take: refuse the call (required, the default), or serve it "
    "and mark the episode incomplete.",
)
@click.option(
    "--auth",
    type=click.Choice(["required", "none"]),
    help="Whether calls need a signed token (the default); none is for loopback only.",
)
@click.option(
    "--unattributed/--no-unattributed",
    default=None,
    help="Let calls in that name no episode, and record them apart; loopback only.",
)
@click.option("--openapi", is_flag=True, help="Print an OpenAPI document of all routes, and end.")
def command(*, openapi: bool, **options: Any) -> None:
    """Run the proxy: agents call it in place of the engine, and each call becomes a turn in Kafka.

    \b
    An agent's base URL is   http://HOST:PORT/e/EPISODE/v1
    and its API key the episode's token; `odradek token EPISODE` prints both. A client that can set
    no key has its token in the address: http://HOST:PORT/t/TOKEN/v1

    No agent sees the end of a reply before Kafka has acknowledged its turn. Needs
    ODRADEK_KAFKA_BOOTSTRAP_SERVERS, the topics (`odradek topics apply`) and ODRADEK_TOKEN_KEYS,
    the same as the agent hosts have. All settings: ODRADEK_PROXY_*, options win over them.
    """  # noqa: D301 - \b is click's
    from odradek.proxy.process import run
    from odradek.proxy.settings import ProxySettings

    settings = ProxySettings(**given(**options))
    if openapi:
        click.echo(_document(settings))
        return
    run(settings)


def _document(settings: "ProxySettings") -> str:
    from importlib.metadata import version

    import msgspec

    from odradek.infra.bus import MemoryAppender
    from odradek.proxy.app import Proxy
    from odradek.proxy.openapi import document

    openapi = document(Proxy(settings, MemoryAppender()).application(), version=version("odradek"))
    return msgspec.json.format(msgspec.json.encode(openapi), indent=2).decode()
