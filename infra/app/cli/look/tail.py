"""`odradek tail`: any topic, readably."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final

import click

from odradek.infra.app.history.credentials import HIDDEN, SECRET, masked
from odradek.infra.bus import Record
from odradek.infra.client import records
from odradek.infra.client.subscribe import Since
from odradek.schemas.codec import check_depth, check_text, header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.ids import key_shown

ARRAYS: Final = {"ids": "ids", "logprobs": "logprobs"}
"""Fields that are base64 of 4-byte numbers."""
LONGEST: Final = 160
"""Characters of a text before it is cut."""


@click.command()
@click.argument("topic")
@click.option("--key", help="Only records with this key.")
@click.option(
    "--header", "headers", multiple=True, help="Only records with this header: name=value."
)
@click.option(
    "--since",
    default="beginning",
    show_default=True,
    help="beginning, end, an offset, or a time ago such as -90s, -5m, -1h.",
)
@click.option(
    "--follow/--no-follow", default=True, help="Go on for ever, or end where it ends now."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a record, nothing cut.")
def command(
    topic: str, key: str | None, headers: tuple[str, ...], since: str, follow: bool, as_json: bool
) -> None:
    """Print the records of TOPIC, such as rl.episodes.v1 or a2a.events.hilo.

    Token arrays are summed up and long texts cut; what looks like a credential is masked.
    """
    required = [_pair(text) for text in headers]
    place: Since = int(since) if since.isdigit() else since
    asyncio.run(_tail(topic, key, required, place, follow=follow, as_json=as_json))


async def _tail(
    topic: str,
    key: str | None,
    required: list[tuple[str, str]],
    since: Since,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    async for record in records(topic, since=since, follow=follow):
        if key is not None and record.key != key:
            continue
        if any(header(record.headers, name) != value for name, value in required):
            continue
        click.echo(as_object(record) if as_json else as_line(record))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--header wants name=value, not {text!r}")
    return name, value


def as_line(record: Record) -> str:
    """A record as one line for people: time, place, type, key, and a short form of the value."""
    stamp = datetime.fromtimestamp(record.timestamp, UTC).strftime("%H:%M:%S.%f")[:-3]
    kind = (header(record.headers, "ce_type") or "").removeprefix("odradek.")
    value = _value(record)
    if isinstance(value, dict) and kind:
        value.pop("type", None)
    text = json.dumps(short(value), ensure_ascii=False) if value is not None else "(no value)"
    reason = header(record.headers, "dlq-reason")
    parts = [
        stamp,
        f"{record.partition}@{record.offset}",
        kind,
        key_shown(record.key) or "(no key)",
    ]
    return "  ".join(
        [part for part in parts if part] + ([f"[{reason}]"] if reason else []) + [text]
    )


def as_object(record: Record) -> str:
    """A record as one JSON object; only credentials are left out."""
    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": key_shown(record.key),
            "headers": {
                name: HIDDEN if SECRET.search(name) else value.decode(errors="replace")
                for name, value in record.headers
                if value is not None
            },
            "value": masked(_value(record)),
        },
        ensure_ascii=False,
    )


def _value(record: Record) -> Any:
    """The value as JSON, as text where it is none, None for a tombstone."""
    if record.value is None:
        return None
    text = record.value.decode(errors="replace")
    try:
        check_depth(record.value)
        check_text(record.value)
        return json.loads(text)
    except (ValueError, InvalidRecord):
        return text


def short(value: Any) -> Any:
    """A JSON value for one line: arrays counted, texts cut, credentials masked."""
    if isinstance(value, dict):
        return {name: _short_field(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [short(inner) for inner in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}… ({len(value)} characters)"
    return value


def _short_field(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if SECRET.search(name):
            return HIDDEN
        if name in ARRAYS:
            size = (len(value) * 3 // 4 - value.count("=")) // 4
            return f"<{size} {ARRAYS[name]}>"
    return short(value)
