"""Views as text for a terminal: tokens are coloured by whether they are trained on."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

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
from odradek.infra.app.tables import ReadableTable

TRAINED: Final = "bold green"
SAMPLED: Final = "yellow"
CONTEXT: Final = "dim"
LEGEND: Final = Text.assemble(
    ("trained on", TRAINED), " · ", ("sampled, not trained on", SAMPLED), " · ",
    ("context", CONTEXT),
)  # fmt: skip
APART: Final = frozenset({"type", "breaks"})
"""Fields of an episode that have no line of their own."""
Cells = tuple[str, ...]


def rendered(view: Any, *, marked: bool) -> RenderableType:
    """A view for a console.

    Args:
        view: Of `views`.
        marked: Put [brackets] around tokens that are trained on, for where there are no colours.
    """
    writers: dict[type, Any] = {
        StepView: _step,
        UsedBatchView: _used_batch,
        EpisodeView: _episode,
        TaskView: _task,
        TurnView: _turn,
    }
    return Group(*writers[type(view)](view, marked))


def _uses(used: tuple[StepUse, ...]) -> Text:
    """Which steps used a batch."""
    if not used:
        return Text("no step of the run used it")
    return Text(
        "used by " + ", ".join(f"step {use.step} ({use.rows} rows, {use.at})" for use in used)
    )


def _step(view: StepView, marked: bool) -> Iterator[RenderableType]:
    state = "skipped" if view.skipped else "cut off" if view.cut_off else "counts"
    yield Text(f"step {view.step} of run {view.run} ({state})", style="bold")
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
    )  # fmt: skip
    for remark in view.remarks:
        yield Text(f"note: {remark}", style="red")
    for batch in view.batches:
        yield Text()
        yield from _batch(batch, marked)
    if view.passed:
        cells = [
            (one.at, one.reason, one.episode_id, "" if one.row is None else str(one.row))
            for one in view.passed
        ]
        yield Text()
        yield ReadableTable(("batch", "passed as", "episode", "row"), cells, "passed without use")


def _batch(view: BatchView, marked: bool) -> Iterator[RenderableType]:
    yield Text(f"batch {view.at}", style="bold")
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
    samples: list[Cells] = [
        (str(one.sample), f"{one.reward:g}", f"{one.advantage:+.4f}", one.at, one.episode_id,
         one.refused)
        for one in view.samples
    ]  # fmt: skip
    samples += [
        (str(one["sample"]), "-", "-", "-", one["episode_id"], f"excluded: {one['reason']}")
        for one in view.exclusions
    ]
    yield ReadableTable(("sample", "reward", "advantage", "at", "episode", ""), samples)
    yield from _rows(view.rows, marked)


def _rows(rows: tuple[RowView, ...], marked: bool) -> Iterator[RenderableType]:
    for row in rows:
        yield Text()
        yield Text(_row_line(row), style="red" if row.refused else "")
        yield _tokens(row.tokens, marked)


def _row_line(row: RowView) -> str:
    parts = [
        f"row {row.row}: sample {row.sample}, sequence {row.sequence} of {row.at}",
        f"child {row.child}" if row.child else "",
        f"reward {row.reward:g}, advantage {row.advantage:+.4f}, weight {row.weight:g}",
        f"versions {_versions(row)}",
        "" if row.staleness is None else f"staleness {row.staleness}",
        f"{sum(row.tokens.trained)} of {len(row.tokens.ids)} tokens trained on",
        f"REFUSED: {row.refused}" if row.refused else "",
    ]
    return " · ".join(part for part in parts if part)


def _versions(row: RowView) -> str:
    names = ["?" if one is None else str(one) for one in (row.oldest, row.newest)]
    return "-".join(dict.fromkeys(names))


def _tokens(tokens: TokensView, marked: bool) -> Text:
    """Each token in its colour; ids where there is no tokenizer."""
    words = tokens.texts or tuple(f"{token} " for token in tokens.ids)
    text = Text()
    before = 0
    for word, trained, sampled in zip(words, tokens.trained, tokens.sampled, strict=True):
        if marked and trained != before:
            text.append("[" if trained else "]")
        text.append(word, TRAINED if trained else SAMPLED if sampled else CONTEXT)
        before = trained
    if marked and before:
        text.append("]")
    return text


def _episode(view: EpisodeView, marked: bool) -> Iterator[RenderableType]:
    episode = view.episode
    yield Text(f"episode {episode['episode_id']}", style="bold")
    yield _facts(
        ("at", view.at),
        *((name, _cell(value)) for name, value in episode.items() if name not in APART),
        ("batch", view.batch_at or "none points at it"),
    )
    yield _uses(view.used)
    turns = [
        (one["turn_id"], str(one["completion_tokens"]), one["at"], one["error"])
        for one in view.turns
    ]
    if turns:
        yield ReadableTable(("turn", "tokens", "at", "error"), turns)
    for one in episode.get("breaks", ()):
        yield Text(f"break: {one['reason']} at {one.get('index', 0)}, turn {one['turn_id']}")
    yield from _rows(view.rows, marked)


def _task(view: TaskView, marked: bool) -> Iterator[RenderableType]:
    if view.task:
        yield Text(f"task {view.task['task_id']}", style="bold")
        yield _facts(("at", view.at), *((n, _cell(v)) for n, v in view.task.items() if n != "type"))
    else:
        yield Text("retention has deleted the task", style="red")
    if view.batch is None:
        yield Text("no batch came of it yet")
        return
    yield from _used_batch(view.batch, marked)


def _used_batch(view: UsedBatchView, marked: bool) -> Iterator[RenderableType]:
    yield _uses(view.used)
    yield from _batch(view.batch, marked)


def _turn(view: TurnView, marked: bool) -> Iterator[RenderableType]:
    yield Text(f"turn {view.turn['turn_id']}", style="bold")
    yield _facts(
        ("at", view.at),
        *((name, _cell(value)) for name, value in view.turn.items() if name != "type"),
        ("prompt", _prompt(view)),
    )  # fmt: skip
    yield _tokens(view.tokens, marked)


def _prompt(view: TurnView) -> str:
    new = f"{len(view.prompt_ids)} new ids"
    if not view.prompt_base:
        return new
    return f"{view.prompt_prefix} ids of turn {view.prompt_base}, then {new}"


def _facts(*facts: tuple[str, str]) -> ReadableTable:
    return ReadableTable(("", ""), [(Text(n, style=CONTEXT), v) for n, v in facts if v])


def _position(position: tuple[int, int]) -> str:
    return f"{position[0]} row {position[1]}"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_cell(value)}" for name, value in values.items())


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _time(written: float) -> str:
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="milliseconds")
