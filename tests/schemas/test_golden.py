"""Bytes that were written once are read for ever."""

import os
from pathlib import Path

import pytest

from odradek.schemas import codec, events
from odradek.schemas.topics import TOPICS
from tests.support.schemas.event_samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_golden_bytes_decode_to_the_same_event(name):
    """Committed bytes of every event type still mean what they meant.

    From the release of 0.1.0 on these files never change. A new field is added to the sample, and
    a new file beside the old ones, by `ODRADEK_WRITE_GOLDEN=2 pytest tests/schemas`.
    """
    if release := os.environ.get("ODRADEK_WRITE_GOLDEN"):
        (GOLDEN / f"{name}.{release}.json").write_bytes(codec.encode(SAMPLES[name]))
    files = sorted(GOLDEN.glob(f"{name}.*.json"))
    assert files, f"no golden bytes of {name}"
    kind = type(SAMPLES[name])
    for file in files:
        decoded = codec.decode(file.read_bytes(), kind)
        assert isinstance(decoded, kind)
    assert SAMPLES[name] == decoded


def test_every_type_of_the_table_has_golden_bytes():
    """A new event type cannot be added without its bytes."""
    tags = {kind.__struct_config__.tag for row in TOPICS for kind in row.types}
    assert tags == set(SAMPLES)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_set_every_field(name):
    """A field that the sample leaves at its default would not be held by the golden bytes."""
    sample = SAMPLES[name]
    defaults = dict(
        zip(
            sample.__struct_fields__[-len(sample.__struct_defaults__) :],
            sample.__struct_defaults__,
            strict=True,
        )
        if sample.__struct_defaults__
        else ()
    )
    same = {
        field
        for field, default in defaults.items()
        if getattr(sample, field) == default and field not in {"dialect", "format"}
    }
    assert set() == same


def test_unknown_fields_are_ignored():
    """A reader of today passes over what a writer of tomorrow adds."""
    event = codec.decode(b'{"type":"tick","writer":"w","new":{"a":[1]}}', events.TurnsEvent)
    assert events.Tick(writer="w") == event
