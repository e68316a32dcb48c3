"""The announcer over Kafka."""

import logging
import time
from collections import Counter
from typing import Final

from odradek.infra.bus import BusSettings, KafkaAppender
from odradek.infra.errors import LogUnavailable
from odradek.infra.runtime import metrics
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.events import Event, Policy, Step
from odradek.schemas.topics import POLICIES, STEPS
from odradek.trainer.commit.ledger import LedgerTail, rival
from odradek.trainer.errors import PolicyTaken
from odradek.trainer.feed.rows import FAULTS

log = logging.getLogger("odradek")

LOOK_BACK: Final = 256
"""Entries of the ledger that a start looks through for those of a trainer beside it."""
PATIENCE_S: Final = 300.0
"""How long the broker may be away before the trainer gives up; its checkpoint stands already."""


class KafkaAnnouncer:
    """Implements `Announcer`. After an unclear answer it appends the same event again."""

    def __init__(self, thread: LoopThread, bus: BusSettings) -> None:
        self._thread = thread
        self._bus = bus
        self._appender = thread.call(KafkaAppender.connect(bus))
        self._tail: LedgerTail | None = None
        self._last = -1
        """Offset of this trainer's last entry of the ledger."""

    def policy(self, policy: Policy) -> None:
        """See `Announcer`."""
        metrics.gauge(metrics.POLICY_VERSION, lambda: [(policy.version, ())])
        self._append(POLICIES.name, policy.name, policy, f"{policy.name}/{policy.version}")

    def step(self, step: Step) -> None:
        """See `Announcer`."""
        event_id = f"{step.run}/{step.incarnation}/{step.step}/{step.position}/{step.version}"
        event_id += "" if step.weights else "/taken"
        at = self._append(STEPS.name, step.run, step, event_id)
        if not step.weights:
            self._require_alone(step, at)
        self._last = at
        _measure(step)
        reasons = Counter(refusal.reason for refusal in step.refused)
        metrics.moved(metrics.STALE, reasons["stale"])
        for reason in FAULTS:
            metrics.moved(metrics.UNUSABLE, reasons[reason], reason=reason)
        for reason, n in reasons.items():
            metrics.count(metrics.REFUSALS, n, reason)

    def _require_alone(self, taken: Step, at: int) -> None:
        """Raise PolicyTaken where another trainer counts versions of the same policy.

        Two of them would give one number to two weights. The one that started last stays. Between
        entries that stand side by side nobody else has written, so a trainer that is alone reads
        nothing.
        """
        if self._last == at - 1:
            return
        if self._tail is None:
            self._tail = LedgerTail(self._thread, self._bus, since=max(at - LOOK_BACK, 0))
        other = rival(self._tail.more(), taken)
        if other is not None:
            raise PolicyTaken(
                f"another trainer counts versions of policy {taken.policy!r}: run {other.run!r}, "
                f"start {other.incarnation}, took version {other.version}. One "
                "policy has one trainer that leads: end one of them; or, to train beside it on the "
                f"same batches, give --run another name and --no-leads --sampled-by {other.run}"
            )

    def _append(self, topic: str, key: str, event: Event, event_id: str) -> int:
        """Return the offset once the log has it."""
        value = codec.encode(event)
        headers = codec.headers(event, source="/trainer", subject=key, event_id=event_id)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._thread.call(
                    self._appender.append(topic, key=key, value=value, headers=headers)
                ).offset
            except LogUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("%s; trying again", error)
                time.sleep(1.0)

    def close(self) -> None:
        """Disconnect."""
        self._thread.call(self._appender.aclose())


def _measure(step: Step) -> None:
    """Count a step, and show its metrics until the next."""
    if step.optimized or step.skipped:
        metrics.count(metrics.STEPS, 1, "optimized" if step.optimized else "skipped")
        shown = [(value, (name,)) for name, value in step.metrics.items()]
        metrics.gauge(metrics.STEP_METRIC, lambda: shown)
    elif step.refused:
        metrics.count(metrics.STEPS, 1, "passed")
