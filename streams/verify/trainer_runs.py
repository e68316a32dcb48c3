"""How trainers used the batches: each is used once, or refused with its reason."""

from collections.abc import Callable
from typing import Any, Protocol

from odradek.schemas import codec
from odradek.schemas.events import Batch, Pointer, Policy, Step
from odradek.streams.verify.findings import Findings
from odradek.streams.verify.policy_versions import VersionClaims
from odradek.streams.verify.steps import ROW_REASONS, RunLedger

RowsOf = Callable[[Pointer], int | None]
"""How many rows an episode makes; None where it cannot be looked up."""


class Revise(Protocol):
    """Makes a batch as late rewards before an offset make it."""

    def __call__(self, batch: Batch, *, until: int) -> Batch | None:
        """None where an episode of it is gone."""
        ...


def unknown(batch: Batch, *, until: int) -> None:
    """A `Revise` for who has no late rewards: such uses are not looked at."""
    del batch, until


class TrainerRuns:
    """Runs of trainers over one or more topics of batches."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._lines: dict[str, RunLedger] = {}
        self._versions = VersionClaims(findings)
        self._batches: dict[str, dict[int, Batch]] = {}
        self._cut = False
        """Whether retention has taken the beginning of the ledger."""

    def step(self, entry: Step, offset: int) -> None:
        """Take an entry of the ledger, in its order."""
        self._cut = self._cut or (not self._lines and offset > 0)
        self._lines.setdefault(entry.run, RunLedger(entry.run, self._findings)).feed(entry)
        self._versions.step(entry)

    def policy(self, policy: Policy) -> None:
        """Take an announced policy."""
        self._versions.policy(policy)

    def batch(self, topic: str, offset: int, batch: Batch) -> None:
        """Take a batch."""
        self._batches.setdefault(topic, {})[offset] = batch

    def check(self, rows_of: RowsOf, revise: Revise = unknown) -> list[dict[str, Any]]:
        """Hold every run against the batches; return a table of the runs."""
        self._versions.check(cut=self._cut)
        return [self._check_run(line, rows_of, revise) for _, line in sorted(self._lines.items())]

    def _check_run(self, line: RunLedger, rows_of: RowsOf, revise: Revise) -> dict[str, Any]:
        line.check(cut=self._cut)
        assert line.last is not None
        batches = self._batches.get(line.last.topic, {})
        used = line.used()
        self._check_digests(line, batches, revise)
        for offset in sorted(batches.keys() | used.keys()):
            # What lies behind the last step is under way: read, perhaps, but not yet used.
            if offset <= line.spot.position and not self._cut:
                self._check_batch(line, offset, batches.get(offset), used.get(offset, 0), rows_of)
        reached = max(line.spot.position, line.read)
        return {
            "run": line.run,
            "topic": line.last.topic,
            "policy": line.last.policy,
            "sampled_by": line.last.sampled_by,
            "version": line.last.version,
            "steps": len(line.steps),
            "starts": line.starts,
            "steps_skipped": sum(step.skipped for step in line.steps.values()),
            "steps_redone": line.redone,
            "batches_used": len(used),
            "rows_used": sum(used.values()),
            "refused": dict(sorted(line.reasons().items())),
            "position": reached,
            "waiting": sum(offset >= reached for offset in batches),
        }

    def _check_batch(
        self, line: RunLedger, offset: int, batch: Batch | None, used: int, rows_of: RowsOf
    ) -> None:
        name = f"batch {offset} of run {line.run}"
        refused = line.refused(offset)
        if batch is None:
            return  # retention took it
        done = offset < line.spot.position
        if done and not used and not refused:
            self._findings.lost.append(f"{name}: neither used nor refused")
            return
        if any(not episode for episode, _ in refused):
            if used:
                self._findings.duplicated.append(
                    f"{name}: refused as a whole, and {used} rows used"
                )
            return
        whole = {episode for episode, reason in refused if reason not in ROW_REASONS}
        counts = [rows_of(pointer) for pointer in batch.episodes if pointer.episode_id not in whole]
        if any(n is None for n in counts):
            return  # its episodes stand on a topic that was not read, or retention took them
        rows = sum(n for n in counts if n is not None)
        single = sum(n for (_, reason), n in refused.items() if reason in ROW_REASONS)
        if used > rows or (done and used + single > rows):
            self._findings.duplicated.append(
                f"{name}: {rows} rows, but {used} used and {single} refused"
            )
        elif done and used + single < rows:
            self._findings.lost.append(f"{name}: {rows} rows, but {used} used and {single} refused")

    def _check_digests(self, line: RunLedger, batches: dict[int, Batch], revise: Revise) -> None:
        for step in line.steps.values():
            for use in step.used:
                batch = batches.get(use.offset)
                if batch is not None and use.revision:
                    batch = revise(batch, until=use.revision)
                if batch is None or not use.digest:
                    continue
                if _digest(batch) != use.digest:
                    self._findings.problems.append(
                        f"run {line.run}: step {step.step} used another batch {use.offset} than "
                        "the one that stands there"
                    )


def _digest(batch: Batch) -> str:
    """What a batch's digest has to be."""
    parts = [
        pointer.digest + (f"@{pointer.reward!r}" if pointer.revision else "")
        for pointer in batch.episodes
    ]
    return codec.digest("".join(parts).encode())
