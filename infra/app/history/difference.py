"""The first difference between two steps, or two runs. Pure.

Compared is what was trained on and what came of it: settings of learning, batches by their digests,
rows with their tokens, and weights. Places, times and names of runs differ between equal steps, and
so do metrics of speed: they are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.infra.app.history.views import BatchView, RowView, StepView
from odradek.schemas.events import Step

OF_THE_RUN: Final = frozenset({"replay_of", "leads", "sampled_by", "until_end", "begin_anew"})
"""Settings that differ between a run and its replay."""
NOTHING: Final = "nothing"
"""Stands for what only one of two has."""


class RunSteps(Struct, frozen=True):
    """A run as its ledger has it."""

    settings: dict[str, Any]
    """Of its first start; empty where they are not on the log."""
    settings_at: str
    steps: dict[int, tuple[str, Step]]
    """By number, the place and the entry of each step that counts."""


class Difference(Struct, frozen=True):
    """Where two things differ first."""

    path: str
    """Such as `batches[2].rows[5].tokens.logprobs[17]`."""
    left: Any
    right: Any
    left_at: str = ""
    """The place on the log of the part that differs."""
    right_at: str = ""


class Comparison(Struct, frozen=True):
    """What a comparison came to."""

    equal: bool
    compared: int
    """How many steps, up to the first that differs."""
    difference: Difference | None = None


def of_steps(left: StepView, right: StepView) -> Comparison:
    """Compare what two steps were trained on, down to each token."""
    for path, one, other, at in _parts(left, right):
        difference = first_difference(one, other, path)
        if difference is not None:
            placed = msgspec.structs.replace(difference, left_at=at[0], right_at=at[1])
            return Comparison(equal=False, compared=1, difference=placed)
    return Comparison(equal=True, compared=1)


def of_runs(left: RunSteps, right: RunSteps) -> Comparison:
    """Compare two runs by their ledgers: what they began with, then step by step."""
    if left.settings and right.settings:
        mine, theirs = _learning(left.settings), _learning(right.settings)
        if difference := first_difference(mine, theirs, "settings"):
            placed = msgspec.structs.replace(
                difference, left_at=left.settings_at, right_at=right.settings_at
            )
            return Comparison(equal=False, compared=0, difference=placed)
    numbers = sorted({*left.steps, *right.steps})
    for n, number in enumerate(numbers, 1):
        here, there = left.steps.get(number), right.steps.get(number)
        one, other = (_ledger_part(entry) for entry in (here, there))
        difference = first_difference(one, other, f"step {number}")
        if difference is not None:
            placed = msgspec.structs.replace(
                difference, left_at=here[0] if here else "", right_at=there[0] if there else ""
            )
            return Comparison(equal=False, compared=n, difference=placed)
    return Comparison(equal=True, compared=len(numbers))


def first_difference(left: Any, right: Any, path: str = "") -> Difference | None:
    """Where two values of JSON differ first: keys in the order of the left one, then the others."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in [*left, *(name for name in right if name not in left)]:
            inner = f"{path}.{name}" if path else name
            one, other = left.get(name, NOTHING), right.get(name, NOTHING)
            if difference := first_difference(one, other, inner):
                return difference
        return None
    if _is_list(left) and _is_list(right):
        for n in range(max(len(left), len(right))):
            one = left[n] if n < len(left) else NOTHING
            other = right[n] if n < len(right) else NOTHING
            if difference := first_difference(one, other, f"{path}[{n}]"):
                return difference
        return None
    return None if left == right else Difference(path, left, right)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _learning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which a run learns, in one order."""
    return {name: value for name, value in sorted(settings.items()) if name not in OF_THE_RUN}


def _parts(left: StepView, right: StepView) -> Iterator[tuple[str, Any, Any, tuple[str, str]]]:
    """What is compared in turn: a path, both values, and where they stand."""
    at = (left.at, right.at)
    yield "settings", _learning(left.settings), _learning(right.settings), at
    yield "skipped", left.skipped, right.skipped, at
    batches = [[batch.digest for batch in view.batches] for view in (left, right)]
    yield "batches", batches[0], batches[1], at
    for n, (one, other) in enumerate(zip(left.batches, right.batches, strict=True)):
        at = (one.at, other.at)
        yield f"batches[{n}].samples", _samples(one), _samples(other), at
        counts = [len(batch.rows) for batch in (one, other)]
        yield f"batches[{n}].rows", counts[0], counts[1], at
        for m, (row, twin) in enumerate(zip(one.rows, other.rows, strict=True)):
            yield f"batches[{n}].rows[{m}]", _row(row), _row(twin), (row.at, twin.at)
    yield "weights", left.weights, right.weights, (left.at, right.at)


def _samples(batch: BatchView) -> list[dict[str, Any]]:
    return [
        {"episode_id": one.episode_id, "reward": one.reward, "advantage": one.advantage}
        for one in batch.samples
    ]


def _row(row: RowView) -> dict[str, Any]:
    plain = msgspec.to_builtins(row)
    plain["tokens"].pop("texts", None)
    return {name: value for name, value in plain.items() if name != "at"}


def _ledger_part(entry: tuple[str, Step] | None) -> Any:
    if entry is None:
        return NOTHING
    step = entry[1]
    return {
        "used": [{"digest": use.digest, "rows": use.rows} for use in step.used],
        "skipped": step.skipped,
        "weights": step.weights,
    }
