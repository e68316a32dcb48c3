"""The options that say which batches are meant: those of `replay`, and of whatever looks back."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from odradek.infra.app.cli.options import given

if TYPE_CHECKING:
    from odradek.infra.archive import Archive
    from odradek.streams.history import Selection

TIME = "Such as 10m, 2h, 7d for that long ago, or 2026-01-31T12:00 (UTC)."


SOURCE: Final = click.option(
    "--from",
    "source",
    default="",
    metavar="TOPIC",
    help="Where the batches stand.  [default: what the steps read, else rl.batches.v1]",
)
SKIP_MISSING: Final = click.option(
    "--skip-missing", is_flag=True, help="Leave out batches of which an episode is gone."
)


IMPORTED: Final = click.option(
    "--imported",
    is_flag=True,
    help="Imported episodes in place of those in batches; filters mean them and their tasks.",
)


ARCHIVE: Final = click.option(
    "--archive",
    "location",
    metavar="PLACE",
    help="What the log no longer has is read there: a folder, or s3://bucket/prefix.  "
    "[default: ODRADEK_ARCHIVE]",
)


def archive_at(location: str | None) -> "Archive | None":
    """The archive that an option or the environment names, None where neither does."""
    from odradek.infra.archive import ArchiveSettings, archive_of

    return archive_of(ArchiveSettings(**given(location=location)))


AGENTS: Final = click.option(
    "--agent", "agents", multiple=True, help="Of this agent; may be repeated."
)


FILTERS: Final = (
    click.option(
        "--reward",
        default="",
        metavar="[NAME=]LOW:HIGH",
        help="Batches with an episode of such a reward, both included; of the component NAME.",
    ),
    click.option(
        "--versions",
        default="",
        metavar="FROM:TO",
        help="Batches with an episode of which such a policy version sampled a token.",
    ),
    AGENTS,
    click.option(
        "--item", "items", multiple=True, help="Of tasks made from this; may be repeated."
    ),
    click.option("--task", "tasks", multiple=True, help="Of this task id; may be repeated."),
    click.option("--until", default="", metavar="TIME", help=f"Written before. {TIME}"),
    click.option("--since", default="", metavar="TIME", help=f"Written since. {TIME}"),
    click.option("--run", default="main", show_default=True, help="Whose steps are meant."),
    click.option(
        "--steps",
        default="",
        metavar="FROM:TO",
        help="That these optimizer steps used; 812 alone is one step.",
    ),
    click.option(
        "--batches",
        default="",
        metavar="FROM:TO",
        help="Offsets; TO is the first left out. 0:40, 12: and :40 are spans, too.",
    ),
)
"""In the reverse of the order in which help lists them."""


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; `selection_of` reads them."""
    for option in FILTERS:
        command = option(command)
    return command


def filters_of_agent(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a verb that is about one agent: without `--agent`."""
    for option in FILTERS:
        command = command if option is AGENTS else option(command)
    return command


def selection_of(
    *,
    batches: str,
    steps: str,
    run: str,
    since: str,
    until: str,
    tasks: tuple[str, ...],
    items: tuple[str, ...],
    versions: str,
    reward: str,
    agents: tuple[str, ...] = (),
) -> "Selection":
    """The options as a Selection. Raises ReplayRefused, InvalidTime."""
    from odradek.infra.client.times import parse_time
    from odradek.streams.history import CountSpan, RewardSpan, Selection

    now = time.time()
    return Selection(
        offsets=CountSpan.parse(batches) if batches else None,
        steps=CountSpan.parse(steps, "steps", alone=True) if steps else None,
        run=run,
        since=parse_time(since, now) if since else -math.inf,
        until=parse_time(until, now) if until else math.inf,
        tasks=tasks,
        items=items,
        agents=agents,
        versions=CountSpan.parse(versions, "versions", alone=True) if versions else None,
        reward=RewardSpan.parse(reward) if reward else None,
    )
