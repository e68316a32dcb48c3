"""The search for a step in the ledger, held against reading all of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas.events import BatchUse, Step
from odradek.streams.history.ledger import LedgerEntry, StepSearch
from odradek.streams.verify.findings import Findings
from odradek.streams.verify.steps import RunLedger


class ListedLedger:
    """Entries of one run among those of others, and a count of what is asked for."""

    def __init__(self, entries, end, first=0):
        self.entries = [entry for entry in entries if entry.offset >= first]
        self.first, self.end = first, end
        self.asked = 0

    async def after(self, offset):
        self.asked += 1
        return next((entry for entry in self.entries if entry.offset >= offset), None)


@st.composite
def ledgers(draw):
    """What starts of a trainer write that die, go on from a checkpoint, and tell of others late."""
    entries, offset, version, done, saved = [], 0, 0, {0: (0, 0)}, [0]

    def tell(step, incarnation, at, **more):
        nonlocal offset
        offset += draw(st.integers(0, 3))  # entries of other runs, and markers
        entries.append(
            LedgerEntry(offset, float(offset), Step(
                run="main", incarnation=incarnation, step=step, position=at[0], row=at[1],
                version=version, **more,
            ))
        )  # fmt: skip
        offset += 1

    for incarnation in range(1, draw(st.integers(1, 5)) + 1):
        step = draw(st.sampled_from(saved))
        saved = [one for one in saved if one <= step]
        at = done[step]
        version += 1
        tell(step, incarnation, at, optimized=False)
        own = [one for one in entries if one.step.step == step and one.is_step]
        if own and draw(st.booleans()):
            # A step that was durable and not told of: the next start tells.
            entries.remove(own[-1])
            tell(step, incarnation, at, used=own[-1].step.used)
        for number in range(step + 1, step + 1 + draw(st.integers(0, 6))):
            before = at
            at = (at[0] + draw(st.integers(0, 2)), draw(st.integers(0, 3)))
            at = max(at, (before[0], before[1] + 1))
            used = tuple(
                BatchUse(offset=batch, rows=1)
                for batch in range(before[0], at[0] + (at[1] > 0))
            )  # fmt: skip
            if draw(st.booleans()):
                version += 1
                tell(number, incarnation, at, optimized=False)
            skipped = draw(st.booleans())
            tell(number, incarnation, at, optimized=not skipped, skipped=skipped, used=used)
            done[number] = at
            if draw(st.booleans()):
                saved.append(number)
            if draw(st.booleans()):
                tell(draw(st.sampled_from(saved)), incarnation, at, optimized=False, checkpoint="c")
    return entries, offset


def read_all(entries):
    line = RunLedger("main", Findings())
    for entry in entries:
        line.feed(entry.step)
    return line.steps


@given(made=ledgers())
@settings(max_examples=60, deadline=None)
async def test_each_step_is_found_as_by_reading_all(made):
    """Whatever starts made again; a step that was cut off is found, and said to be cut off."""
    entries, end = made
    search = StepSearch(ListedLedger(entries, end))
    counting = read_all(entries)
    assert max(counting, default=0) == await search.last_step()
    for number in range(1, 40):
        found = await search.step(number)
        if number in counting:
            assert counting[number] == found.entry.step
            assert found.cut_off_by is None
        elif found is not None:
            assert found.cut_off_by is not None


@given(made=ledgers())
@settings(max_examples=60, deadline=None)
async def test_the_steps_that_used_a_batch_are_those_that_say_so(made):
    """Of the steps that count, and no other."""
    entries, end = made
    search = StepSearch(ListedLedger(entries, end))
    counting = read_all(entries)
    for offset in range(12):
        expected = [
            number
            for number, step in sorted(counting.items())
            if any(use.offset == offset for use in step.used)
        ]
        users = await search.users("rl.batches.v1", offset)
        assert expected == [found.entry.step.step for found in users]


@given(made=ledgers())
@settings(max_examples=60, deadline=None)
async def test_a_version_is_found_where_it_was_taken(made):
    """At the first entry that names it."""
    entries, end = made
    search = StepSearch(ListedLedger(entries, end))
    for version in {entry.step.version for entry in entries}:
        first = next(entry for entry in entries if entry.step.version == version)
        assert first == await search.named(version)
    assert await search.named(1000) is None


@given(made=ledgers())
@settings(max_examples=60, deadline=None)
async def test_a_step_begins_where_the_one_before_it_ended(made):
    """Also where another start made that one."""
    entries, end = made
    search = StepSearch(ListedLedger(entries, end))
    counting = read_all(entries)
    for number, step in counting.items():
        before = await search.before(await search.step(number))
        if number - 1 in counting and before is not None:
            one = counting[number - 1]
            assert (one.position, one.row) == (before.step.position, before.step.row)
        assert step.position >= (before.step.position if before else 0)


async def test_a_step_of_a_long_ledger_is_found_without_reading_it():
    """In 100,000 entries, by some dozens of looks."""
    entries = [
        LedgerEntry(n, 0.0, Step(run="main", incarnation=1, step=n, position=n, optimized=n > 0))
        for n in range(100_000)
    ]

    class Counted(ListedLedger):
        async def after(self, offset):
            self.asked += 1
            return self.entries[offset] if offset < len(self.entries) else None

    ledger = Counted(entries, len(entries))
    found = await StepSearch(ledger).step(81_234)
    assert 81_234 == found.entry.step.step
    assert ledger.asked < 60
