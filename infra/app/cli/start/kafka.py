"""`odradek kafka`: a real broker on this machine, for those who have none."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.local_kafka import daemon
from odradek.infra.app.local_kafka.jars import (
    KAFKA_VERSION,
    Progress,
    fetch_jars,
    jars_dir,
    missing,
)


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that start, stop and status share."""
    function = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(function)
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        help="Where data and log are. Default: .odradek/kafka of a project's folder, else the "
        "user's cache folder.",
    )(function)


@click.group(cls=WholeSentences)
def command() -> None:
    """Start, stop or ask about a local Kafka broker.

    It is a real Apache Kafka in KRaft mode, on 127.0.0.1 only, without Java or Maven installed:
    the runtime comes with the package, the jars are fetched once (44 MB), each checked against
    its pinned SHA-256, and kept in the user's cache folder (ODRADEK_CACHE_DIR).
    """


@command.command(short_help="Start the broker and wait until it answers.")
@options
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="the last one, else 9092",
    help="Where to listen.",
)
def start(folder: Path | None, port: int, as_json: bool) -> None:
    """Start the broker and wait until it answers; running already, it is left as it is."""
    began = time.monotonic()
    with jars_bar(quiet=as_json) as progress:
        status = daemon.start(folder or daemon.default_folder(), port=port, progress=progress)
    if as_json:
        _print_json({**msgspec.to_builtins(status), "wall_s": round(time.monotonic() - began, 3)})
        return
    click.echo(f"Kafka {KAFKA_VERSION} answers, process {status.pid}, data in {status.folder}")
    click.echo(f"export ODRADEK_KAFKA_BOOTSTRAP_SERVERS={status.bootstrap_servers}")


@command.command()
@options
def stop(folder: Path | None, as_json: bool) -> None:
    """Stop the broker; its data stays for the next start."""
    folder = folder or daemon.default_folder()
    stopped = daemon.stop(folder)
    if as_json:
        _print_json({"stopped": stopped, "folder": str(folder)})
    else:
        click.echo("stopped" if stopped else f"no broker of {folder} is running")


@command.command(short_help="Tell whether the broker runs.")
@options
def status(folder: Path | None, as_json: bool) -> None:
    """Tell whether the broker runs; the exit code is 0 when it answers, else 1."""
    broker = daemon.status(folder or daemon.default_folder())
    if as_json:
        _print_json(msgspec.to_builtins(broker))
    elif broker.running:
        state = "answers" if broker.ready else "runs but does not answer"
        click.echo(f"Kafka {state} at {broker.bootstrap_servers}, process {broker.pid}")
        click.echo(f"data in {broker.folder}")
    else:
        click.echo(f"no broker of {broker.folder} is running")
    raise SystemExit(0 if broker.ready else 1)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def fetch(as_json: bool) -> None:
    """Fetch the broker's jars, so that later starts need no network."""
    absent = len(missing())
    with jars_bar(quiet=as_json) as progress:
        paths = fetch_jars(progress=progress)
    if as_json:
        _print_json({"folder": str(jars_dir()), "jars": len(paths), "fetched": absent})
    else:
        click.echo(f"{len(paths)} jars in {jars_dir()}, {absent} fetched now")


@contextmanager
def jars_bar(*, quiet: bool = False) -> Iterator[Progress | None]:
    """A progress bar for the jars; it shows only when there is something to fetch."""
    if quiet or not missing():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(f"Kafka {KAFKA_VERSION}, jars"), BarColumn(), MofNCompleteColumn(),
        TextColumn("[dim]{task.description}"),
    )  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def progress(fetched: int, total: int, name: str) -> None:
            bar.update(task, completed=fetched, total=total, description=name)

        yield progress


def _print_json(answer: dict[str, Any]) -> None:
    click.echo(msgspec.json.encode(answer))
