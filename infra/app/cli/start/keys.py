"""`odradek keys`: who may ask agents for something, and who may judge."""

import secrets
from pathlib import Path

import click
import msgspec
from rich.console import Console

from odradek.agents.trust.key_files import write_pair
from odradek.agents.trust.keys import KeyRing
from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.tables import ReadableTable
from odradek.schemas.topics import NAME


@click.group(cls=WholeSentences)
def command() -> None:
    """Make keys: of producers of requests, of the gateway's clients, and of people who judge.

    Kafka does not say who wrote a record. So who sends requests to agents (gateway, dispatcher,
    your own clients) signs each with a key of its own, and agent hosts hold the public keys. Where
    Kafka is on loopback no keys are needed; elsewhere hosts refuse what is not signed.

    \b
    odradek keys new dispatcher --samples
    odradek keys new gateway --principal 'key/*' --principal 'jwt/*'
    odradek keys bearer ann
    odradek keys judge ada
    ODRADEK_TRUST_SIGNING_KEY=keys/dispatcher.json odradek dispatch
    ODRADEK_TRUST_SIGNING_KEY=keys/gateway.json odradek gateway
    ODRADEK_TRUST_VERIFICATION_KEYS=keys/public odradek agent ...

    To rotate a key: make another one, copy its public file to the hosts (they notice it within
    seconds), give its private file to the producer, then delete the old public file.
    """  # noqa: D301 - click reads the backslash


@command.command(short_help="Make a producer's key pair.")
@click.argument("name")
@click.option(
    "--principal",
    "principals",
    multiple=True,
    metavar="NAME",
    help="Whom else the key may speak for: a name, or a pattern such as 'key/*'. Repeatable.",
)
@click.option("--samples", is_flag=True, help="Its requests may be samples of training tasks.")
@click.option(
    "--into",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("keys"),
    show_default=True,
    help="Where the key goes.",
)
def new(name: str, principals: tuple[str, ...], samples: bool, folder: Path) -> None:
    """Make the key pair of the producer NAME, which is also the principal it speaks for.

    The private key goes to FOLDER/NAME.json, for the producer alone (mode 600), the public one to
    FOLDER/public/NAME-TIME.json, for all hosts. The key's id is the name of that file.
    """
    if not NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is no name: use up to 63 letters, digits, - and _")
    private, public = write_pair(folder, name, principals, samples=samples)
    click.echo(f"for {name} alone:  export ODRADEK_TRUST_SIGNING_KEY={private}")
    click.echo(f"for agent hosts:  export ODRADEK_TRUST_VERIFICATION_KEYS={public}")


@command.command(short_help="Make a key of a client of the gateway.")
@click.argument("principal")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("keys/bearer-keys.json"),
    show_default=True,
    help="The gateway's file of hashes.",
)
def bearer(principal: str, path: Path) -> None:
    """Make a key for PRINCIPAL, a client of the gateway, and print it: it is shown this once.

    The file keeps its hash (ODRADEK_GATEWAY_BEARER_KEYS); a gateway notices it within seconds. The
    client sends `Authorization: Bearer KEY`. To take a key back, delete its entry in the file.
    """
    from odradek.agents.gateway.access.bearer_keys import add_key

    if not principal.isprintable() or not 0 < len(principal) <= 200:
        raise click.UsageError("a principal has 1 to 200 visible characters")
    path.parent.mkdir(parents=True, exist_ok=True)
    click.echo(add_key(path, principal))


@command.command(name="list", short_help="List the keys that hosts would accept.")
@click.argument("path", type=click.Path(exists=True, path_type=Path), default=Path("keys/public"))
def list_(path: Path) -> None:
    """List the keys in PATH, a folder or a file: whom each speaks for, and whether in training."""
    rows = [
        (key.jwk.kid, ", ".join(key.jwk.principals), "yes" if key.jwk.samples else "no")
        for key in KeyRing(path)
    ]
    Console().print(ReadableTable(("key", "speaks for", "samples"), rows))


@command.command(name="judge", short_help="Make the key of a person who judges.")
@click.argument("person")
def judge_(person: str) -> None:
    """Make the key with which PERSON signs rewards, and print it: it is shown this once.

    The person has it in ODRADEK_JUDGE_KEY, for `odradek judge`. The intake has the keys of all
    judges in ODRADEK_JUDGE_KEYS: add this one, and start it again.
    """
    from odradek.infra.app.judging.verdicts import source_of

    source, key = source_of(person), secrets.token_hex(32)
    click.echo(f"for {person} alone:  export ODRADEK_JUDGE_KEY={key}")
    keys = msgspec.json.encode({source: key}).decode()
    click.echo(f"for the intake:  export ODRADEK_JUDGE_KEYS='{keys}'")
