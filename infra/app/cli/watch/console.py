"""`odradek console`: the log as pages in a browser."""

import click

from odradek.infra.app.cli.options import given
from odradek.infra.app.cli.selection import ARCHIVE, archive_at


@click.command()
@click.option("--host", help="The address to listen on.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on.  [8600]")
@click.option(
    "--tokenizer",
    default="",
    metavar="FOLDER",
    help="Of the model whose tokenizer reads the tokens.  [default: of each run]",
)
@ARCHIVE
def command(host: str | None, port: int | None, tokenizer: str, location: str | None) -> None:
    """Show the log as pages in a browser: steps, batches, episodes, and their tokens.

    It only reads, and no page needs a script. It listens on loopback. On another address it wants
    ODRADEK_CONSOLE_TOKEN, ODRADEK_CONSOLE_CERTIFICATE and ODRADEK_CONSOLE_KEY.

    \b
    odradek console --port 8600        # then open http://127.0.0.1:8600

    Needs ODRADEK_KAFKA_BOOTSTRAP_SERVERS.
    """  # noqa: D301 - click reads the backslash
    from odradek.infra.app.console.lookup import LogViews
    from odradek.infra.app.console.server import Console
    from odradek.infra.app.console.settings import ConsoleSettings
    from odradek.infra.bus import BusSettings
    from odradek.infra.runtime import process

    settings = ConsoleSettings(**given(host=host, port=port))
    settings.check()

    async def work() -> None:
        views = LogViews(BusSettings(), archive_at(location), tokenizer)
        await process.serve(Console(settings, views), "console")

    process.run("console", work())
