"""Verdicts on the log: which conversations are judged, and the events written for each."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from odradek.infra.bus import Appender, Record, check_place, dead_letter
from odradek.infra.runtime import metrics, telemetry
from odradek.infra.runtime.reward_signatures import JudgeSettings, signed
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Conversation, Outcome, Reward
from odradek.schemas.topics import CONVERSATIONS, REWARDS
from odradek.streams.errors import RewardFailed, Undecided
from odradek.streams.judges.judge import Judge

log = logging.getLogger("odradek")

FAILED: Final = "reward_failed"
Ending = Callable[[bool], Awaitable[bool]]
"""Whether the service is to end; called with True, it waits a moment for the signal."""


class ConversationFilter(Struct, frozen=True):
    """Which conversations are judged."""

    component: str
    agent: str = ""
    """Only this agent's; "" for all."""
    everything: bool = False
    """Also those whose task does not ask for the component, or that did not complete."""

    def wants(self, conversation: Conversation) -> bool:
        """Whether a conversation is to be judged."""
        if self.agent and conversation.agent != self.agent:
            return False
        requested = self.component in conversation.reward_components
        return self.everything or (requested and conversation.outcome is Outcome.COMPLETED)


async def never(patient: bool) -> bool:
    """An `Ending` for a service that nobody ends."""
    del patient
    return False


class Verdicts:
    """Has conversations judged, and writes what comes of it.

    Args:
        appender: Where verdicts and dead letters go.
        judge: Says what a conversation is worth.
        conversation_filter: Which conversations it judges.
        keys: What verdicts are signed with, if anything.
        ending: Whether the service ends.
    """

    def __init__(
        self,
        appender: Appender,
        judge: Judge,
        conversation_filter: ConversationFilter,
        keys: JudgeSettings,
        ending: Ending = never,
    ) -> None:
        self._appender = appender
        self._judge = judge
        self._filter = conversation_filter
        self._keys = keys
        self._ending = ending
        self._consumer = f"reward-{conversation_filter.component}"

    async def settle(self, record: Record, partitions: int = 0) -> None:
        """Write the verdict on a conversation, or a dead letter where the judge failed.

        A conversation that the filter leaves out gets neither.

        Args:
            record: The conversation.
            partitions: How many its topic has; 0 if nobody knows.

        Raises:
            LogUnavailable: The log does not take it.
            Undecided: The judge failed while the service ends, perhaps of the same signal.
            NoWorker: Nobody can be asked.
        """
        try:
            await self._verdict(record, partitions)
        except InvalidRecord as error:
            await self._letter(record, error.reason, error.detail)
        except RewardFailed as error:
            # A signal that is for all of us may reach a worker first, and us a moment later.
            if await self._ending(error.lost):
                raise Undecided(f"{record.key} is left to the next service: {error}") from error
            # Without its traceback: that may quote what an agent said.
            log.error("%s failed on %s: %s", self._consumer, record.key, error)  # noqa: TRY400 - see above
            await self._letter(record, FAILED, str(error))

    async def _verdict(self, record: Record, partitions: int) -> None:
        conversation: Conversation = codec.decode(
            record.value, Conversation, max_bytes=CONVERSATIONS.max_bytes
        )
        check_place(record, partitions)
        if record.key != conversation.episode_id:
            raise InvalidRecord("wrong_key", "the record's key is not its episode_id")
        if self._filter.wants(conversation):
            worth = await self._judged(conversation, record.value or b"")
            await self._publish(conversation, worth, telemetry.parent_of(record.headers))

    async def _judged(self, conversation: Conversation, value: bytes) -> float:
        began, error = time.perf_counter(), ""
        try:
            return await self._judge.judge(conversation, value)
        except RewardFailed:
            error = FAILED
            raise
        finally:
            seconds = time.perf_counter() - began
            metrics.record(metrics.VERDICT_S, seconds, self._filter.component, error)

    async def _letter(self, record: Record, reason: str, detail: str) -> None:
        await dead_letter(self._appender, record, reason, detail, consumer=self._consumer)

    async def _publish(self, conversation: Conversation, worth: float, trace: str | None) -> None:
        episode, component = conversation.episode_id, self._filter.component
        source = f"/reward/{component}"
        reward = Reward(episode_id=episode, component=component, value=worth, source=source)
        with telemetry.span("reward.publish", parent=trace, episode=episode) as traceparent:
            value = codec.encode(reward)
            headers = codec.headers(
                reward,
                source=source,
                subject=episode,
                event_id=f"{episode}/reward/{component}",
                traceparent=traceparent,
            )
            await self._appender.append(
                REWARDS.name, key=episode, value=value, headers=signed(value, headers, self._keys)
            )
