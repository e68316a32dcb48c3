"""Views as sections to be drawn: headings, facts, tables and tokens. Pure."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

from msgspec import Struct

from odradek.infra.app.history.views import (
    BatchView,
    EpisodeView,
    RowView,
    StepUse,
    StepView,
    TaskView,
    TokensView,
    TurnView,
    UsedBatchView,
)

Shown = Literal["step", "batch", "episode", "task", "turn", "row", "record", "run"]
"""What can be shown: by the verbs of `odradek show`, or on a page of the console."""
APART: Final = frozenset({"type", "breaks"})
"""Fields of an event that have no line of their own."""
LEADS: Final[dict[str, Shown]] = {"task_id": "task", "episode_id": "episode", "parent": "episode"}
"""Fields that name what can be shown."""


class Lead(Struct, frozen=True):
    """A cell that leads to something, where what draws it has links."""

    text: str
    what: Shown
    name: str
    """By which it is shown: an id, a number or a place; of a row its batch's place, and its own
    number behind that."""


Cell = str | Lead


class Heading(Struct, frozen=True):
    """Begins a part."""

    text: str
    place: str = ""
    """Of what the part is about."""


class Facts(Struct, frozen=True):
    """Names and values."""

    pairs: tuple[tuple[str, Cell], ...]


class Grid(Struct, frozen=True):
    """A table."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""


class Note(Struct, frozen=True):
    """A line."""

    text: str
    wrong: bool = False


class ShownTokens(Struct, frozen=True):
    """Tokens, one behind the other."""

    tokens: TokensView


Section = Heading | Facts | Grid | Note | ShownTokens
RowsDrawn = Callable[[str, tuple[RowView, ...]], Iterator[Section]]
"""What is to be drawn of rows, and the place of the batch or episode that they are of."""


def _whole_rows(place: str, rows: tuple[RowView, ...]) -> Iterator[Section]:
    """Rows with all of their tokens."""
    del place
    for row in rows:
        yield row_line(row)
        yield ShownTokens(row.tokens)


def sections_of(view: Any, rows: RowsDrawn = _whole_rows) -> Iterator[Section]:
    """What is to be drawn of a view.

    Args:
        view: One of `views`.
        rows: What is to be drawn of its rows.
    """
    makers: dict[type, Callable[[Any], Iterator[Section]]] = {
        StepView: partial(_step, rows=rows),
        UsedBatchView: partial(_used_batch, rows=rows),
        EpisodeView: partial(_episode, rows=rows),
        TaskView: partial(_task, rows=rows),
        TurnView: _turn,
    }
    yield from makers[type(view)](view)


def _step(view: StepView, rows: RowsDrawn) -> Iterator[Section]:
    state = "skipped" if view.skipped else "cut off" if view.cut_off else "counts"
    yield Heading(f"step {view.step} of run {view.run} ({state})", view.at)
    yield _facts(
        ("at", view.at),
        ("written", _time(view.written)),
        ("start of the trainer", str(view.start)),
        ("batches", f"{view.topic}/0, from {_position(view.began)} to {_position(view.ended)}"),
        ("policy", f"{view.policy} version {view.version}, taken at {view.version_at or '?'}"),
        ("weights", view.weights),
        ("checkpoint", view.checkpoint),
        ("settings", _listed(view.settings)),
        ("settings at", view.settings_at or "this environment"),
        ("metrics", _listed(view.metrics)),
    )
    for remark in view.remarks:
        yield Note(f"note: {remark}", wrong=True)
    for batch in view.batches:
        yield from _batch(batch, rows)
    if view.passed:
        cells = tuple(
            (
                one.at,
                one.reason,
                _episode_lead(one.episode_id),
                "" if one.row is None else str(one.row),
            )
            for one in view.passed
        )
        yield Grid(("batch", "passed as", "episode", "row"), cells, "passed without use")


def _batch(view: BatchView, rows: RowsDrawn) -> Iterator[Section]:
    yield Heading(f"batch {view.at}", view.at)
    yield _facts(
        ("task", Lead(view.task_id, "task", view.task_id) if view.task_id else ""),
        ("item", view.item),
        ("agent", view.agent),
        ("purpose", "" if view.purpose == "train" else view.purpose),
        ("written", _time(view.written)),
        ("digest", view.digest),
        ("repeats", view.origin),
        ("not trained on", view.why_not),
    )
    samples: list[tuple[Cell, ...]] = [
        (
            str(one.sample),
            f"{one.reward:g}",
            f"{one.advantage:+.4f}",
            one.at,
            _episode_lead(one.episode_id),
            one.refused,
        )
        for one in view.samples
    ]
    samples += [
        (
            str(one["sample"]),
            *("-", "-", "-"),
            _episode_lead(one["episode_id"]),
            f"excluded: {one['reason']}",
        )
        for one in view.exclusions
    ]
    yield Grid(("sample", "reward", "advantage", "at", "episode", ""), tuple(samples))
    yield from rows(view.at, view.rows)


def row_line(row: RowView) -> Note:
    """A row without its tokens, in a line."""
    parts = (
        f"row {row.row}: sample {row.sample}, sequence {row.sequence} of {row.at}",
        f"child {row.child}" if row.child else "",
        f"reward {row.reward:g}, advantage {row.advantage:+.4f}, weight {row.weight:g}",
        "replayed" if row.replayed else "",
        f"importance {row.importance:g}" if row.importance != 1 else "",
        f"versions {versions_of(row)}",
        "" if row.staleness is None else f"staleness {row.staleness}",
        f"{sum(row.tokens.trained)} of {len(row.tokens.ids)} tokens trained on",
        f"REFUSED: {row.refused}" if row.refused else "",
    )
    return Note(" · ".join(part for part in parts if part), wrong=bool(row.refused))


def versions_of(row: RowView) -> str:
    """The policy versions that sampled a row: the oldest and the newest, `?` where unknown."""
    names = ["?" if one is None else str(one) for one in (row.oldest, row.newest)]
    return "-".join(dict.fromkeys(names))


def _episode(view: EpisodeView, rows: RowsDrawn) -> Iterator[Section]:
    episode = view.episode
    yield Heading(f"episode {episode['episode_id']}", view.at)
    yield _facts(
        ("at", view.at), *_fields(episode), ("batch", view.batch_at or "none points at it")
    )
    yield _uses(view.used)
    turns = tuple(
        (
            Lead(one["turn_id"], "turn", one["at"]),
            str(one["completion_tokens"]),
            one["at"],
            one["error"],
        )
        for one in view.turns
    )
    if turns:
        yield Grid(("turn", "tokens", "at", "error"), turns)
    for one in episode.get("breaks", ()):
        yield Note(f"break: {one['reason']} at {one.get('index', 0)}, turn {one['turn_id']}")
    yield from rows(view.batch_at or view.at, view.rows)


def _task(view: TaskView, rows: RowsDrawn) -> Iterator[Section]:
    if view.task:
        yield Heading(f"task {view.task['task_id']}", view.at)
        yield _facts(("at", view.at), *_fields(view.task))
    else:
        yield Note("the task itself is not on rl.tasks.v1 (any more)", wrong=True)
    if view.batch is None:
        yield Note("no batch came of it yet")
        return
    yield from _used_batch(view.batch, rows)


def _used_batch(view: UsedBatchView, rows: RowsDrawn) -> Iterator[Section]:
    yield from _batch(view.batch, rows)
    yield _uses(view.used)


def _turn(view: TurnView) -> Iterator[Section]:
    yield Heading(f"turn {view.turn['turn_id']}", view.at)
    prompt = f"{len(view.prompt_ids)} new ids"
    if view.prompt_base:
        prompt = f"{view.prompt_prefix} ids of turn {view.prompt_base}, then {prompt}"
    yield _facts(("at", view.at), *_fields(view.turn), ("prompt", prompt))
    yield ShownTokens(view.tokens)


def _uses(used: tuple[StepUse, ...]) -> Note:
    """Which steps used a batch."""
    steps = ", ".join(f"step {use.step} ({use.rows} rows, {use.at})" for use in used)
    return Note(f"used by {steps}" if used else "no step of the run used it")


def _facts(*facts: tuple[str, Cell]) -> Facts:
    return Facts(tuple(fact for fact in facts if fact[1]))


def _fields(event: dict[str, Any]) -> list[tuple[str, Cell]]:
    return [(name, _field(name, value)) for name, value in event.items() if name not in APART]


def _field(name: str, value: Any) -> Cell:
    if name.endswith("_at"):
        return _time(value)
    return Lead(value, LEADS[name], value) if name in LEADS and value else _cell(value)


def _episode_lead(episode_id: str) -> Cell:
    return Lead(episode_id, "episode", episode_id) if episode_id else ""


def _position(position: tuple[int, int]) -> str:
    return f"{position[0]} row {position[1]}"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_cell(value)}" for name, value in values.items())


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _time(written: float) -> str:
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="milliseconds")
