"""Tasks in a file of JSON lines, as people write them."""

import difflib
import json
import uuid
from pathlib import Path
from typing import Any

from odradek.infra.app.project.text import read_text
from odradek.infra.client import fresh
from odradek.infra.errors import ProjectError
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Task, Timeouts
from odradek.schemas.worth import fault

FIELDS = frozenset(Task.__struct_fields__) | {"type"}
TIMEOUTS = frozenset(Timeouts.__struct_fields__)
FORMER = {"run_s": "attempt_s"}
"""Former names of fields, and what they are now."""


def read(path: Path, *, keep_ids: bool = False) -> list[Task]:
    """The tasks of a file, all of them or none.

    Args:
        path: One JSON object a line; empty lines are skipped.
        keep_ids: Whether each line must bring a `task_id` of its own; else any is ignored.

    Raises:
        ProjectError: For the first bad line, naming it.
    """
    lines = read_text(path).split("\n")
    tasks: list[Task] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        task = _task(f"{path}, line {number}", line, keep_ids=keep_ids)
        if keep_ids and task.task_id in line_of:
            raise ProjectError(
                f"{path}, line {number}: task_id {task.task_id!r} stands in line "
                f"{line_of[task.task_id]} already"
            )
        line_of[task.task_id] = number
        tasks.append(task)
    if not tasks:
        raise ProjectError(f"{path} holds no tasks")
    return tasks


def epochs(tasks: list[Task], count: int, *, first: int = 0, run: str | None = None) -> list[Task]:
    """The tasks `count` times over, under fresh ids that `run` and the epoch make."""
    run = run or uuid.uuid4().hex
    return [
        task for epoch in range(first, first + count) for task in fresh(tasks, epoch=epoch, run=run)
    ]


def _check_names(where: str, noun: str, fields: dict[str, Any], names: frozenset[str]) -> None:
    """Raise ProjectError for a field that no reader would look at."""
    for name in fields:
        if name in names:
            continue
        near = difflib.get_close_matches(name, names, n=1)
        intended = FORMER.get(name) or (near[0] if near else "")
        hint = f"; did you mean {intended!r}?" if intended else ""
        raise ProjectError(f"{where}: {noun} has no {name!r}{hint}")


def _task(where: str, line: str, *, keep_ids: bool) -> Task:
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{where} is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ProjectError(f"{where}: a task is a JSON object")
    _check_names(where, "a task", fields, FIELDS)
    if isinstance(timeouts := fields.get("timeouts"), dict):
        _check_names(where, "a task's table of timeouts", timeouts, TIMEOUTS)
    if keep_ids and not fields.get("task_id"):
        raise ProjectError(f"{where}: --keep-ids needs a task_id in every line")
    record = {"type": "task", "task_id": "-", **fields}
    try:
        text = json.dumps(record, allow_nan=False, ensure_ascii=False).encode()
        task: Task = codec.decode(text, Task)
    except UnicodeEncodeError:
        raise ProjectError(f"{where}: a text holds half of a pair of surrogates: \\ud800") from None
    except ValueError:
        raise ProjectError(f"{where}: a number is not finite, and JSON has none of those") from None
    except InvalidRecord as error:
        raise ProjectError(f"{where}: {error.detail}") from None
    if (wrong := fault(task)) is not None:
        raise ProjectError(f"{where}: {wrong.detail}")
    return task
