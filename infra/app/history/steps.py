"""Steps and batches, looked up: where they stand, what they point at, and the rows that were used.

A step's rows are those between the position at which it began and the one at which it ended, made
anew by the trainer's functions from the records that its batches point at. Which of them were
refused, the ledger says.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.history.difference import RunSteps
from odradek.infra.app.history.rows import BatchRows, Texts, with_step_advantages
from odradek.infra.app.history.tokens import texts_of
from odradek.infra.app.history.views import PassedView, StepUse, StepView, UsedBatchView
from odradek.infra.bus import Record, RecordAddress, RecordLookup
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode, Pointer, Refusal, Step
from odradek.schemas.topics import STEPS
from odradek.streams.errors import HistoryGone, HistoryUnknown
from odradek.streams.history import ledger_reader
from odradek.streams.history.ledger import FoundStep, LedgerEntry, StepSearch
from odradek.streams.history.names import record_at
from odradek.streams.history.pointers import LostEpisode, address_of, episodes, shown
from odradek.streams.history.revisions import late_rewards
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import EpisodeGroup, Row, revised_group
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.feed.step_advantages import StepRules

EVERY_ROW: Final = (0, 1 << 62)


class RunRules(Struct, frozen=True):
    """The rules by which a run makes rows, and where they are written down."""

    settings: dict[str, Any]
    rows: RowRules
    step: StepRules
    at: str = ""
    """The entry of the ledger; empty: this environment's settings."""

    @classmethod
    def of(cls, settings: dict[str, Any], at: str = "") -> "RunRules":
        """The rules of settings, of which those with their defaults may be missing."""
        named = {
            to: settings[name]
            for to, name in (("baseline", "baseline"), ("scale", "scale_advantages"))
            if name in settings
        }
        return cls(settings, RowRules.of(settings), StepRules(**named), at)


class LogHistory:
    """Looks things up through one connection, for one run of a trainer.

    Args:
        lookup: The connection.
        run: The run whose steps are meant.
        tokenizer: Folder of a model; by default that with which the run began.
    """

    def __init__(self, lookup: RecordLookup, run: str = "main", tokenizer: str = "") -> None:
        self.lookup = lookup
        self.run = run
        self._tokenizer = tokenizer
        self._searches: dict[str, StepSearch] = {}

    async def search(self, run: str = "") -> StepSearch:
        """The search in the ledger of a run; this one's if none is named."""
        run = run or self.run
        if run not in self._searches:
            self._searches[run] = await ledger_reader.search(self.lookup, run)
        return self._searches[run]

    async def found(self, number: int) -> FoundStep:
        """A step of the run. Raises HistoryUnknown."""
        search = await self.search()
        found = await search.step(number)
        if found is None:
            newest = await search.last_step()
            raise HistoryUnknown(
                f"the ledger has no step {number} of run {self.run!r}"
                + (f": its last one is {newest}" if newest else "; --run names another run")
            )
        return found

    async def rules(self, found: FoundStep | None) -> RunRules:
        """The rules of the start that made a step; this environment's where none are recorded."""
        named = found.start.first.step.settings if found else {}
        if not found or not named:
            from odradek.trainer.settings import TrainerSettings  # it costs, and is rarely needed

            return RunRules.of(TrainerSettings().model_dump(mode="json", exclude_defaults=True))
        at = f"{STEPS.name}/0/{found.start.first.offset}"
        return RunRules.of(named, at)

    def texts(self, rules: RunRules) -> Texts:
        """Texts of tokens; none where the model's folder is not on this machine."""
        folder = self._tokenizer or str(rules.settings.get("model", ""))
        return texts_of(folder, wanted=bool(self._tokenizer))

    async def step(self, number: int) -> StepView:
        """All that a step was trained on.

        Raises:
            HistoryUnknown: The ledger has no such step.
            HistoryGone: Retention has deleted a batch of it, or an episode of such a batch.
        """
        found = await self.found(number)
        search = await self.search()
        entry = found.entry.step
        before = await search.before(found)
        began = (0, 0) if before is None else (before.step.position, before.step.row)
        remarks = [] if before else ["the entry before it was deleted: rows may be too many"]
        rules = await self.rules(found)
        if not rules.at:
            remarks.append("its settings are not on the log: rows are made by this environment's")
        if entry.skipped:
            remarks.append("it came to no number, was skipped, and moved nothing")
        if entry.metrics and rules.settings.get("kl_form", "").endswith("_reward"):
            remarks.append("KL in the reward is on no topic: advantages are shown without it")
        refused = await self._refused(found, before, began)
        mine = {
            offset: self._rows_between(offset, began, (entry.position, entry.row))
            for offset in sorted(
                {use.offset for use in entry.used}
                | {one.offset for one in refused if one.row is not None}
            )
            if began[0] <= offset <= entry.position
        }
        revisions = {use.offset: use.revision for use in entry.used if use.revision}
        batches = await self._batches(entry.topic, mine, refused, rules, revisions)
        used = [
            (batch, [row for row in batch.rows if mine[offset][0] <= row.index < mine[offset][1]])
            for offset, batch in batches.items()
        ]
        remarks += _differences(found, used, refused)
        out = {(one.offset, one.episode_id, one.row) for one in refused if one.row is not None}
        staleness = await self._staleness(found, rules, [row for _, rows in used for row in rows])
        version_at = await search.named(entry.version)
        return StepView(
            at=f"{STEPS.name}/0/{found.entry.offset}",
            written=found.entry.timestamp,
            run=entry.run,
            step=entry.step,
            start=entry.incarnation,
            skipped=entry.skipped,
            cut_off=found.cut_off_by is not None,
            topic=entry.topic,
            began=began,
            ended=(entry.position, entry.row),
            version=entry.version,
            version_at=f"{STEPS.name}/0/{version_at.offset}" if version_at else "",
            policy=entry.policy,
            weights=entry.weights,
            checkpoint=entry.checkpoint,
            metrics=entry.metrics,
            settings=rules.settings,
            settings_at=rules.at,
            batches=tuple(
                batch.view(
                    rows,
                    refused=_reasons(batch.group.offset, refused),
                    staleness=staleness,
                    texts=self.texts(rules),
                )
                for batch, rows in with_step_advantages(
                    used, rules.step, lambda row: (row.offset, row.episode_id, row.index) in out
                )
            ),
            passed=tuple(
                PassedView(
                    at=f"{entry.topic}/0/{one.offset}",
                    reason=one.reason,
                    episode_id=one.episode_id,
                    row=one.row,
                )
                for one in refused
                if one.offset not in mine
            ),
            remarks=tuple(remarks),
        )

    async def _refused(
        self, found: FoundStep, before: LedgerEntry | None, began: tuple[int, int]
    ) -> list[Refusal]:
        """What was refused of the step's stretch, and earlier of the batch at which it began."""
        search = await self.search()
        low = found.start.first.offset if before is None else before.offset
        if began[1]:
            users = await search.users(found.entry.step.topic, began[0])
            first = await search.before(users[0]) if users else None
            low = min(low, first.offset) if first is not None else low
        entries = await search.between(low, found.entry.offset)
        refusals = [refusal for entry in entries for refusal in entry.step.refused]
        return [one for one in dict.fromkeys(refusals) if one.offset >= began[0]]

    @staticmethod
    def _rows_between(
        offset: int, began: tuple[int, int], ended: tuple[int, int]
    ) -> tuple[int, int]:
        low = began[1] if offset == began[0] else 0
        return low, ended[1] if offset == ended[0] else EVERY_ROW[1]

    async def _batches(
        self,
        topic: str,
        offsets: Iterable[int],
        refused: Iterable[Refusal],
        rules: RunRules,
        revisions: Mapping[int, int],
    ) -> dict[int, BatchRows]:
        """Batches with their rows, by offset. Raises HistoryGone."""
        addresses = {offset: RecordAddress(topic, 0, offset) for offset in offsets}
        records = await self.lookup.records(addresses.values())
        gone = [shown(at) for at in addresses.values() if at not in records]
        if gone:
            raise HistoryGone(f"retention has deleted the batch {gone[0]}")
        batches = {
            offset: codec.decode(records[at].value, Batch) for offset, at in addresses.items()
        }
        # What the trainer did without when it read the batch, it made no row of.
        without = {(one.offset, one.episode_id) for one in refused if one.row is None}
        return {
            offset: BatchRows(shown(addresses[offset]), records[addresses[offset]].timestamp,
                              group, rules.rows)
            for offset, group in (await self._groups(batches, without, revisions)).items()
        }  # fmt: skip

    async def _groups(
        self,
        batches: Mapping[int, Batch],
        without: set[tuple[int, str]],
        revisions: Mapping[int, int],
    ) -> dict[int, EpisodeGroup]:
        """Batches with their episodes, and with the rewards of the revisions that were used."""
        wanted = {
            offset: [one for one in batch.episodes if (offset, one.episode_id) not in without]
            for offset, batch in batches.items()
        }
        # One look-up for all of them.
        found = await episodes(self.lookup, (one for each in wanted.values() for one in each))
        groups = {}
        for offset, pointers in wanted.items():
            pairs: list[tuple[Pointer, Episode]] = []
            for pointer in pointers:
                episode = found[address_of(pointer)]
                if isinstance(episode, LostEpisode):
                    raise HistoryGone(
                        f"episode {episode.episode_id} is gone ({episode.why}), and with it the "
                        f"rows of batch {offset}: `odradek tail {STEPS.name}` has what the ledger "
                        "says"
                    )
                pairs.append((pointer, episode))
            groups[offset] = EpisodeGroup(offset, batches[offset], tuple(pairs))
        if revisions:
            book, _ = await late_rewards(self.lookup, str(max(revisions.values())))
            for offset in revisions.keys() & groups.keys():
                groups[offset] = revised_group(groups[offset], book, revisions[offset])
        return groups

    async def _staleness(self, found: FoundStep, rules: RunRules, rows: Iterable[Row]) -> Any:
        """How stale a row was when the step used it, by the versions that its run had published."""
        named = rules.settings
        run = found.entry.step.sampled_by or named.get("replay_of") or self.run
        search = await self.search(run)
        oldest = min((row.oldest for row in rows if row.oldest is not None), default=None)
        lineage = Lineage()
        first = None if oldest is None else await search.named(oldest)
        if first is not None:
            last = found.entry.offset
            if named.get("replay_of"):
                last = max((start.end for start in await search.starts()), default=last)
            lineage.hear(entry.step for entry in await search.between(first.offset - 1, last))

        def staleness(row: Row) -> int | None:
            if row.oldest is None or row.oldest not in lineage.steps:
                return None
            return lineage.staleness(row.oldest, found.entry.step.step - 1)

        return staleness

    async def line(self) -> RunSteps:
        """The run's steps that count. The whole ledger is read. Raises HistoryUnknown."""
        search = await self.search()
        starts = await search.starts()
        if not starts:
            raise HistoryUnknown(f"the ledger knows no run {self.run!r}")
        steps: dict[int, tuple[str, Step]] = {}
        for start in starts:
            steps = {number: entry for number, entry in steps.items() if number <= start.resumed}
            for entry in await search.between(start.first.offset - 1, start.end - 1):
                if entry.is_step:
                    steps[entry.step.step] = (f"{STEPS.name}/0/{entry.offset}", entry.step)
        first = starts[0].first
        return RunSteps(first.step.settings, f"{STEPS.name}/0/{first.offset}", steps)

    async def uses(self, topic: str, offset: int) -> list[FoundStep]:
        """The steps of the run that used a batch; none where there is no ledger."""
        with suppress(HistoryUnknown):
            return await (await self.search()).users(topic, offset)
        return []

    async def batch(self, at: RecordAddress) -> UsedBatchView:
        """A batch with all of its rows, and the steps that used it.

        Raises HistoryUnknown, HistoryGone.
        """
        record = await record_at(self.lookup, at)
        users = await self.uses(at.topic, at.offset)
        rules = await self.rules(users[0] if users else None)
        use = next(
            (u for user in users for u in user.entry.step.used if u.offset == at.offset), None
        )
        group = await self.group(record, 0 if use is None else use.revision)
        refused: list[Refusal] = []
        for user in users:
            entries = await (await self.search()).before(user)
            refused += await self._refused(user, entries, (at.offset, 0))
        batch = BatchRows(shown(at), record.timestamp, group, rules.rows)
        reasons = _reasons(at.offset, refused)
        view = batch.view(batch.rows, refused=reasons, texts=self.texts(rules))
        return UsedBatchView(batch=view, used=_uses_of(users, at.offset))

    async def group(self, record: Record, revision: int = 0) -> EpisodeGroup:
        """The batch of a record, with its episodes, and the late rewards before `revision`.

        Raises HistoryUnknown, HistoryGone.
        """
        try:
            batch: Batch = codec.decode(record.value, Batch)
        except InvalidRecord as error:
            raise HistoryUnknown(f"{shown(record.address)} is no batch: {error}") from error
        revisions = {record.offset: revision} if revision else {}
        return (await self._groups({record.offset: batch}, set(), revisions))[record.offset]


def _uses_of(users: Iterable[FoundStep], offset: int) -> tuple[StepUse, ...]:
    """How much of a batch each step used."""
    return tuple(
        StepUse(at=f"{STEPS.name}/0/{user.entry.offset}", step=user.entry.step.step, rows=use.rows)
        for user in users
        for use in user.entry.step.used
        if use.offset == offset
    )


def _reasons(offset: int, refused: Iterable[Refusal]) -> dict[tuple[str, int | None], str]:
    return {(one.episode_id, one.row): one.reason for one in refused if one.offset == offset}


def _differences(
    found: FoundStep, used: Iterable[tuple[BatchRows, list[Row]]], refused: Iterable[Refusal]
) -> list[str]:
    """Where the rows that were made anew are not those that the ledger counts."""
    counted = {use.offset: use.rows for use in found.entry.step.used}
    digests = {use.offset: use.digest for use in found.entry.step.used if use.digest}
    remarks = []
    for batch, rows in used:
        offset = batch.group.offset
        if offset in digests and batch.group.batch.digest() != digests[offset]:
            remarks.append(f"{batch.at} has another digest than the ledger names")
        reasons = _reasons(offset, refused)
        taken = sum((row.episode_id, row.index) not in reasons for row in rows)
        if taken != counted.get(offset, 0):
            remarks.append(
                f"the ledger counts {counted.get(offset, 0)} rows of {batch.at}, and {taken} were "
                "made anew: other settings, or another version of the trainer"
            )
    return remarks
