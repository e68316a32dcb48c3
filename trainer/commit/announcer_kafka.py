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
from odradek.trainer.feed.rows import FAULTS

log = logging.getLogger("odradek")

PATIENCE_S: Final = 300.0
"""How long the broker may be away before the trainer gives up; its checkpoint stands already."""


class KafkaAnnouncer:
    """Implements `Announcer`. After an unclear answer it appends the same event again."""

    def __init__(self, thread: LoopThread, bus: BusSettings) -> None:
        self._thread = thread
        self._appender = thread.call(KafkaAppender.connect(bus))

    def policy(self, policy: Policy) -> None:
        """See `Announcer`."""
        self._append(POLICIES.name, policy.name, policy, f"{policy.name}/{policy.version}")

    def step(self, step: Step) -> None:
        """See `Announcer`."""
        event_id = f"{step.run}/{step.incarnation}/{step.step}/{step.position}/{step.version}"
        event_id += "" if step.weights else "/taken"
        self._append(STEPS.name, step.run, step, event_id)
        reasons = Counter(refusal.reason for refusal in step.refused)
        metrics.moved(metrics.STALE, reasons["stale"])
        for reason in FAULTS:
            metrics.moved(metrics.UNUSABLE, reasons[reason], reason=reason)

    def _append(self, topic: str, key: str, event: Event, event_id: str) -> None:
        value = codec.encode(event)
        headers = codec.headers(event, source="/trainer", subject=key, event_id=event_id)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._thread.call(
                    self._appender.append(topic, key=key, value=value, headers=headers)
                )
            except LogUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("%s; trying again", error)
                time.sleep(1.0)
            else:
                return

    def close(self) -> None:
        """Disconnect."""
        self._thread.call(self._appender.aclose())
