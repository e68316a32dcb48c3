"""The table of formats, and which one a record is of. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.imports import chat, rows, spans, verifiers
from odradek.infra.app.imports.recording import Recording
from odradek.infra.errors import ImportRefused

Object = dict[str, Any]


class RecordedFormat(Struct, frozen=True):
    """How one format is known and read."""

    about: str
    fits: Callable[[Object], bool]
    """Whether a record looks like one of it."""
    parse: Callable[[Sequence[Object]], Recording]
    """The episode of the records that belong together. Raises BadRecording."""
    key: Callable[[Object], Any] | None = None
    """Which episode a record is part of; None where each record is one. Raises BadRecording."""


def _single(parse: Callable[[Object], Recording]) -> Callable[[Sequence[Object]], Recording]:
    return lambda records: parse(records[0])


FORMATS: Final = {
    "odradek": RecordedFormat(
        "rows of `odradek export data episodes`, as JSON lines or Parquet",
        rows.fits,
        _single(rows.parse),
    ),
    "agent-lightning": RecordedFormat(
        "spans of Agent Lightning's store: span_id, attributes", spans.fits, spans.parse, spans.key
    ),
    "verifiers": RecordedFormat(
        "saved results of verifiers: prompt, completion, reward, example_id, …",
        verifiers.fits,
        _single(verifiers.parse),
    ),
    "chat": RecordedFormat(
        "OpenAI's chat format (messages), or TRL's (prompt, completion)",
        chat.fits,
        _single(chat.parse),
    ),
}
"""By name, those first that say more of themselves."""


def detected(record: Any, where: str) -> str:
    """The format that a record is of. Raises ImportRefused where it is of none."""
    if isinstance(record, dict):
        for name, format_ in FORMATS.items():
            if format_.fits(record):
                return name
    listed = "\n".join(f"  {name}: {format_.about}" for name, format_ in FORMATS.items())
    raise ImportRefused(f"{where} is of no format that can be imported:\n{listed}")
