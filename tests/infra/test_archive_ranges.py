"""The archive's pure parts: ranges against a model of sets, names, and objects as bytes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.archive.names import ObjectName
from odradek.infra.archive.objects import FORMAT, META, decoded, digest_of, encoded
from odradek.infra.archive.range import OffsetRange, holder, joined, merged, planned, without
from odradek.infra.archive.validation import listing
from odradek.infra.bus import Record
from odradek.infra.errors import ArchiveDamaged, ArchiveMismatch
from odradek.schemas.ids import key_text

SPANS = st.tuples(st.integers(0, 30), st.integers(0, 12)).map(
    lambda pair: OffsetRange(pair[0], pair[0] + pair[1])
)
MANY = st.lists(SPANS, max_size=6)


def offsets(ranges):
    return {offset for each in ranges for offset in range(each.first, each.end)}


@given(MANY)
def test_merged_ranges_are_the_same_offsets_apart_and_in_order(ranges):
    """No two touch, and none is empty."""
    parts = merged(ranges)
    assert offsets(ranges) == offsets(parts)
    assert all(left.end < right.first for left, right in pairwise(parts))
    assert all(len(part) for part in parts)


@given(SPANS, MANY)
def test_a_range_without_others_is_what_none_of_them_has(whole, taken):
    """Each offset once."""
    left = without(whole, taken)
    assert offsets([whole]) - offsets(taken) == offsets(left)
    assert sum(map(len, left)) == len(offsets(left))


@given(MANY, SPANS)
def test_what_is_missing_is_on_the_log_and_what_is_lost_is_nowhere(held, log):
    """Lost is only what lies behind the archive's beginning: together nothing is left over."""
    plan = planned(held, log)
    has, there = offsets(held), offsets([log])
    assert there - has == offsets(plan.missing)
    behind = set(range(min(has), max(log.first, max(has) + 1))) if has else set()
    assert behind - has - there == offsets(plan.lost)


@given(MANY, SPANS)
def test_archive_and_log_are_joined_unless_the_log_ends_too_early(held, log):
    """An empty log may end anywhere: it was begun anew, or retention has deleted all of it."""
    has = offsets(held)
    whole = joined(log, held)
    if has and max(has) >= log.end and len(log):
        assert whole is None
    elif has and max(has) >= log.end:
        assert OffsetRange(min(has), max(has) + 1) == whole
    else:
        assert OffsetRange(min(has | {log.first}), log.end) == whole


@given(MANY, st.integers(0, 45))
def test_an_offset_is_read_from_the_range_that_reaches_farthest(ranges, offset):
    """None where no range has it."""
    found = holder(ranges, offset)
    ends = [each.end for each in ranges if each.first <= offset < each.end]
    assert max(ends, default=None) == (found and found.end)


NAMES = st.builds(
    lambda partition, more, span: ObjectName("rl.a-b_c.v1", partition, partition + more, span),
    st.integers(0, 9000), st.integers(1, 9000),
    SPANS.filter(len) | st.just(OffsetRange(2**62, 2**62 + 1)),
)  # fmt: skip


@given(NAMES)
def test_a_name_is_read_as_it_is_written(name):
    """Names sort as their ranges do."""
    assert name == ObjectName.parse(str(name))


@pytest.mark.parametrize(
    "path",
    ["", "a.parquet", "rl.x/00001-of-00001/{0}-{1}.parquet", "rl.x/00000-of-00001/{1}-{0}.parquet",
     "rl.x/00000-of-00001/{0}-{1}.parquet.part", "a/rl.x/00000-of-00001/{0}-{1}.parquet"],
)  # fmt: skip
def test_what_is_no_name_of_ours_is_none(path):
    """Somebody may keep other files there."""
    assert ObjectName.parse(path.format("0" * 20, "0" * 19 + "9")) is None


def test_a_listing_names_holes_by_partition():
    """And what is no object."""
    names = [ObjectName("t", 1, 3, OffsetRange(*span)) for span in ((0, 5), (3, 8), (10, 12))]
    (found,), unknown = listing({"readme": 1, **{str(name): 7 for name in names}})
    assert (1, 3, 21, 0, 11, ((8, 9),)) == (
        found.partition, found.objects, found.bytes, found.first, found.last, found.holes
    )  # fmt: skip
    assert ["readme"] == unknown


RECORDS = st.lists(
    st.builds(
        Record,
        topic=st.just("t"), partition=st.just(1), offset=st.integers(0, 99),
        key=st.none() | st.binary(max_size=5).map(key_text),
        value=st.none() | st.binary(max_size=40)
        | st.sampled_from([b'{"episode_id":"e","task_id":3}', b'{"task_id":"t"}', b"[" * 5000]),
        headers=st.lists(st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=4)),
                         max_size=3).map(tuple),
        timestamp=st.integers(0, 2**40).map(lambda ms: ms / 1000),
        appended=st.booleans(),
    ),
    max_size=5, unique_by=lambda record: record.offset,
).map(lambda records: sorted(records, key=lambda record: record.offset))  # fmt: skip
NAME = ObjectName("t", 1, 3, OffsetRange(0, 100))


@settings(max_examples=30)
@given(RECORDS)
def test_an_object_gives_back_each_record_exactly(records):
    """Keys that are no text, no value, headers twice: all of it, and the same bytes twice."""
    data = encoded(NAME, records)
    assert records == list(decoded(NAME, data))
    assert data == encoded(NAME, records)


@pytest.fixture(scope="module")
def whole():
    """Records, and the bytes of their object."""
    records = [
        Record("t", 1, n, f"k{n}", b'{"episode_id":"e%d"}' % n, (("ce_type", b"x"),), 5.0 + n)
        for n in range(20)
    ]
    return records, encoded(NAME, records)


def test_a_damaged_object_is_named_and_never_used(whole):
    """Wherever a bit is turned, or the end is cut off, or the object bears another name."""
    records, data = whole
    for at in range(0, len(data), 7):
        turned = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            assert records == list(decoded(NAME, turned))  # a bit that says nothing
        except ArchiveDamaged as error:
            assert str(NAME) in str(error)
    for cut in (b"", data[:-1], data[: len(data) // 2]):
        with pytest.raises(ArchiveDamaged, match=r"t/00001-of-00003.*damaged"):
            decoded(NAME, cut)
    for span in ((0, 99), (0, 10)):
        with pytest.raises(ArchiveDamaged):
            decoded(ObjectName("t", 1, 3, OffsetRange(*span)), data)


def test_another_value_has_another_digest(whole):
    """What a query shows beside it is made of it."""
    records, _ = whole
    other = [*records[:-1], Record("t", 1, 19, "k19", b"{}", (("ce_type", b"x"),), 24.0)]
    assert digest_of(NAME, records) != digest_of(NAME, other)


def test_a_later_format_is_refused(whole):
    """With its number: what it says is not guessed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(whole[1]))
    meta = {**table.schema.metadata, f"{META}format".encode(): str(FORMAT + 1).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(meta), sink)
    with pytest.raises(ArchiveMismatch, match=f"format {FORMAT + 1}"):
        decoded(NAME, sink.getvalue().to_pybytes())
    row = table.to_pylist()[3]
    assert ("x", "e3", None, 3) == (row["type"], row["episode_id"], row["task_id"], row["offset"])
