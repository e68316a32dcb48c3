"""Views as sections to be drawn: headings, facts, tables and tokens. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

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

APART: Final = frozenset({"type", "breaks"})
"""Fields of an event that have no line of their own."""


class Heading(Struct, frozen=True):
    """Begins a part."""

    text: str
    place: str = ""
    """Of what the part is about."""


class Facts(Struct, frozen=True):
    """Names and values."""

    pairs: tuple[tuple[str, str], ...]


class Grid(Struct, frozen=True):
    """A table."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


class Note(Struct, frozen=True):
    """A line."""

    text: str
    wrong: bool = False


class ShownTokens(Struct, frozen=True):
    """Tokens, one behind the other."""

    tokens: TokensView


Section = Heading | Facts | Grid | Note | ShownTokens


def sections_of(view: Any) -> Iterator[Section]:
    """What is to be drawn of a view."""
    makers: dict[type, Any] = {
        StepView: _step,
        UsedBatchView: _used_batch,
        EpisodeView: _episode,
        TaskView: _task,
        TurnView: _turn,
    }
    yield from makers[type(view)](view)


def _step(view: StepView) -> Iterator[Section]:
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
        yield from _batch(batch)
    if view.passed:
        cells = tuple(
            (one.at, one.reason, one.episode_id, "" if one.row is None else str(one.row))
            for one in view.passed
        )
        yield Grid(("batch", "passed as", "episode", "row"), cells, "passed without use")


def _batch(view: BatchView) -> Iterator[Section]:
    yield Heading(f"batch {view.at}", view.at)
    yield _facts(
        ("task", view.task_id),
        ("item", view.item),
        ("agent", view.agent),
        ("purpose", "" if view.purpose == "train" else view.purpose),
        ("written", _time(view.written)),
        ("digest", view.digest),
        ("repeats", view.origin),
        ("not trained on", view.why_not),
    )
    samples = [
        (
            str(one.sample),
            f"{one.reward:g}",
            f"{one.advantage:+.4f}",
            one.at,
            one.episode_id,
            one.refused,
        )
        for one in view.samples
    ]
    samples += [
        (str(one["sample"]), "-", "-", "-", one["episode_id"], f"excluded: {one['reason']}")
        for one in view.exclusions
    ]
    yield Grid(("sample", "reward", "advantage", "at", "episode", ""), tuple(samples))
    yield from _rows(view.rows)


def _rows(rows: tuple[RowView, ...]) -> Iterator[Section]:
    for row in rows:
        parts = (
            f"row {row.row}: sample {row.sample}, sequence {row.sequence} of {row.at}",
            f"child {row.child}" if row.child else "",
            f"reward {row.reward:g}, advantage {row.advantage:+.4f}, weight {row.weight:g}",
            "replayed" if row.replayed else "",
            f"importance {row.importance:g}" if row.importance != 1 else "",
            f"versions {_versions(row)}",
            "" if row.staleness is None else f"staleness {row.staleness}",
            f"{sum(row.tokens.trained)} of {len(row.tokens.ids)} tokens trained on",
            f"REFUSED: {row.refused}" if row.refused else "",
        )
        yield Note(" · ".join(part for part in parts if part), wrong=bool(row.refused))
        yield ShownTokens(row.tokens)


def _versions(row: RowView) -> str:
    names = ["?" if one is None else str(one) for one in (row.oldest, row.newest)]
    return "-".join(dict.fromkeys(names))


def _episode(view: EpisodeView) -> Iterator[Section]:
    episode = view.episode
    yield Heading(f"episode {episode['episode_id']}", view.at)
    yield _facts(
        ("at", view.at), *_fields(episode), ("batch", view.batch_at or "none points at it")
    )
    yield _uses(view.used)
    turns = tuple(
        (one["turn_id"], str(one["completion_tokens"]), one["at"], one["error"])
        for one in view.turns
    )
    if turns:
        yield Grid(("turn", "tokens", "at", "error"), turns)
    for one in episode.get("breaks", ()):
        yield Note(f"break: {one['reason']} at {one.get('index', 0)}, turn {one['turn_id']}")
    yield from _rows(view.rows)


def _task(view: TaskView) -> Iterator[Section]:
    if view.task:
        yield Heading(f"task {view.task['task_id']}", view.at)
        yield _facts(("at", view.at), *_fields(view.task))
    else:
        yield Note("the task itself is not on rl.tasks.v1 (any more)", wrong=True)
    if view.batch is None:
        yield Note("no batch came of it yet")
        return
    yield from _used_batch(view.batch)


def _used_batch(view: UsedBatchView) -> Iterator[Section]:
    yield from _batch(view.batch)
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


def _facts(*facts: tuple[str, str]) -> Facts:
    return Facts(tuple(fact for fact in facts if fact[1]))


def _fields(event: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, _time(value) if name.endswith("_at") else _cell(value))
        for name, value in event.items()
        if name not in APART
    ]


def _position(position: tuple[int, int]) -> str:
    return f"{position[0]} row {position[1]}"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_cell(value)}" for name, value in values.items())


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _time(written: float) -> str:
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="milliseconds")
