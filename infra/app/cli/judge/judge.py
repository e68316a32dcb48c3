"""`odradek judge`: a person reads episodes and gives rewards."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from odradek.infra.app.cli.options import WholeSentences
from odradek.infra.app.cli.selection import SOURCE, filters, selection_of

if TYPE_CHECKING:
    from odradek.infra.app.history.sections import Section
    from odradek.infra.app.judging.queue import Candidate, JudgedPair
    from odradek.infra.app.judging.verdicts import Better, RewardScale
    from odradek.infra.bus import BusSettings
    from odradek.schemas.events import Reward

SIDES: Final[dict[str, str]] = {"l": "left", "r": "right", "e": "equal"}

PERSON_OPTION: Final = click.option(
    "--as", "person", required=True, metavar="NAME", help="Who judges: the source is person/NAME."
)
SCALE_OPTION: Final = click.option(
    "--scale", default="0:1", show_default=True, metavar="LOW:HIGH", help="Of the rewards."
)
EVERYTHING: Final = click.option(
    "--all", "everything", is_flag=True, help="Also episodes whose task does not ask for it."
)


@click.group(cls=WholeSentences)
def command() -> None:
    """Judge episodes by hand: what a person says is a reward, signed, of source person/NAME.

    \b
    odradek keys judge ada
    odradek judge queue taste --as ada
    odradek judge next taste --as ada --blind
    odradek judge next taste --as ada --pairs
    odradek judge give EPISODE taste 0.5 --as ada --why "polite, but wrong"

    A reward for an episode that waits for it counts in its batch. One for an episode that is closed
    is a late reward: batches stay as they are, and a replay or a trainer takes it where asked to.
    """  # noqa: D301 - \b is click's sign for "do not wrap"


@command.command()
@click.argument("episode")
@click.argument("component")
@click.argument("value", type=float)
@PERSON_OPTION
@click.option("--why", default="", metavar="TEXT", help="In words.")
@SCALE_OPTION
def give(episode: str, component: str, value: float, person: str, why: str, scale: str) -> None:
    """Give EPISODE, by its id, the reward VALUE for COMPONENT."""
    from odradek.infra.app.judging.queue import wants
    from odradek.infra.app.judging.reader import conversation_of
    from odradek.infra.app.judging.verdicts import RewardScale, verdict
    from odradek.infra.bus import BusSettings

    given = verdict(person, episode, component, value, why=why, scale=RewardScale.parse(scale))
    _require_key()

    async def work() -> None:
        bus = BusSettings()
        conversation = await conversation_of(bus, episode)
        if not wants(conversation, component):
            click.echo(
                f"the reward is kept, but changes nothing: the episode is {conversation.outcome}, "
                f"its task asks for {', '.join(conversation.reward_components)}"
                + (", and it is a child" if conversation.parent else ""),
                err=True,
            )
        await _publish(bus, [given])

    asyncio.run(work())
    click.echo(f"{given.source} gives {component} {value:g} to {episode}")


def _of_queue(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what looks at a queue."""
    for option in (
        EVERYTHING,
        SOURCE,
        filters,
        click.option("--pairs", is_flag=True, help="Two samples of a task at a time."),
        click.option("--blind", is_flag=True, help="Nothing shows agent, policy, sample or time."),
        PERSON_OPTION,
        click.argument("component"),
    ):
        verb = option(verb)
    return verb


@command.command(name="queue")
@_of_queue
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def queue_(as_json: bool, **options: Any) -> None:
    """List what is left to judge: the ids of episodes, or of two of them."""
    left = asyncio.run(_left(**options))
    for entry in left:
        ids = [one.episode_id for one in _members(entry)]
        click.echo(msgspec.json.encode(ids).decode() if as_json else "  ".join(ids))
    if not as_json:
        click.echo(f"{len(left)} left", err=True)


@command.command(name="next")
@_of_queue
@SCALE_OPTION
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="End after so many."
)
def next_(limit: int, scale: str, **options: Any) -> None:
    """Read episodes one after the other, and give each a reward for COMPONENT.

    A verdict is written as soon as it is given. An empty line passes over an episode, and q ends;
    the next call goes on with what is left. Rewards are not shown. In pairs, the better one gets
    the upper end of the scale and the other one the lower end; where they are equal, both get its
    middle.
    """
    from odradek.infra.app.judging.verdicts import RewardScale, source_of

    span = RewardScale.parse(scale)
    source_of(options["person"])
    _require_key()
    given = asyncio.run(_ask_all(limit, span, options))
    click.echo(f"{given} verdicts of {options['person']}", err=True)


async def _left(
    *,
    component: str,
    person: str,
    blind: bool,
    pairs: bool,
    source: str,
    everything: bool,
    **words: Any,
) -> "list[Candidate] | list[JudgedPair]":
    from odradek.infra.app.cli.progress import counting
    from odradek.infra.app.judging import queue
    from odradek.infra.app.judging.reader import judge_queue
    from odradek.infra.app.judging.verdicts import source_of
    from odradek.infra.bus import BusSettings

    judge = source_of(person)
    with counting(quiet=not sys.stderr.isatty()) as bar:
        task = bar.add_task("conversations", total=None)
        found = await judge_queue(
            BusSettings(),
            selection_of(**words),
            component,
            judge,
            everything=everything,
            batches=source,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    if pairs:
        return queue.pairs(found.candidates, found.done, source=judge)
    return queue.queue(found.candidates, found.done, source=judge, blind=blind)


def _members(entry: "Candidate | JudgedPair") -> "tuple[Candidate, ...]":
    from odradek.infra.app.judging.queue import JudgedPair

    return (entry.left, entry.right) if isinstance(entry, JudgedPair) else (entry,)


async def _ask_all(limit: int, scale: "RewardScale", options: dict[str, Any]) -> int:
    from odradek.infra.app.judging.reader import words_of
    from odradek.infra.bus import BusSettings

    bus = BusSettings()
    left: list[Candidate | JudgedPair] = [*await _left(**options)][:limit]
    words = await words_of(bus, (one for entry in left for one in _members(entry)))
    given = 0
    for n, entry in enumerate(left, 1):
        ids = [one.episode_id for one in _members(entry)]
        if not set(ids) <= words.keys():
            continue  # retention took it meanwhile
        sections = _sections([words[each] for each in ids], f"{n} of {len(left)}", options["blind"])
        rewards = await asyncio.to_thread(_ask, sections, ids, scale, options)
        if rewards is None:
            break
        await _publish(bus, rewards)
        given += len(rewards)
    return given


def _sections(words: list[Any], place: str, blind: bool) -> "list[Section]":
    from odradek.infra.app.judging.sections import judged_sections

    titles = [place] if len(words) == 1 else [f"{place}, left", f"{place}, right"]
    hidden = blind or len(words) > 1
    return [
        section
        for title, each in zip(titles, words, strict=True)
        for section in judged_sections(each, title, blind=hidden)
    ]


def _ask(
    sections: "Iterable[Section]", ids: list[str], scale: "RewardScale", options: dict[str, Any]
) -> "list[Reward] | None":
    """The rewards that a person gives; none for a pass, None for the end."""
    from rich.console import Console

    from odradek.infra.app.history.text import rendered
    from odradek.infra.app.judging.verdicts import pair_verdicts, verdict
    from odradek.infra.errors import VerdictRefused

    Console(highlight=False).print(rendered(sections, marked=False))
    component, person = options["component"], options["person"]
    what = "l, r or e (equal)" if len(ids) > 1 else f"{scale.low:g} to {scale.high:g}"
    while True:
        answer = click.prompt(f"{component}, {what}, empty to pass, q to end", default="",
                              show_default=False).strip()  # fmt: skip
        if answer in {"", "q"}:
            return None if answer else []
        try:
            if len(ids) > 1:
                better: Better = SIDES[answer[:1]]  # type: ignore[assignment]  # by the table
                return list(pair_verdicts(person, (ids[0], ids[1]), component, better, scale=scale))
            return [verdict(person, ids[0], component, float(answer), scale=scale)]
        except (VerdictRefused, ValueError, KeyError) as error:
            refused = isinstance(error, VerdictRefused)
            click.echo(str(error) if refused else f"{answer!r} is no answer: {what}", err=True)


async def _publish(bus: "BusSettings", rewards: "list[Reward]") -> None:
    """Write verdicts, each with an id of its own: people change their minds, and back again."""
    from odradek.infra.bus import KafkaAppender
    from odradek.infra.client import publish_reward

    if not rewards:
        return
    appender = await KafkaAppender.connect(bus)
    try:
        publishing: list[Awaitable[Any]] = [
            publish_reward(
                appender,
                reward,
                event_id=f"{reward.episode_id}/{reward.component}/{reward.source}/"
                f"{secrets.token_hex(8)}",
            )
            for reward in rewards
        ]
        await asyncio.gather(*publishing)
    finally:
        await appender.aclose()


def _require_key() -> None:
    from odradek.infra.errors import VerdictRefused
    from odradek.infra.runtime.reward_signatures import JudgeSettings

    if not JudgeSettings().checked().key.get_secret_value():
        raise VerdictRefused(
            "a person's rewards are signed: set ODRADEK_JUDGE_KEY, which `odradek keys judge NAME` "
            "makes, and give the intake ODRADEK_JUDGE_KEYS"
        )
