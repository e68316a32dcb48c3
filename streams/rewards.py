"""A reward service: a user's function over sealed conversations, its verdicts on the log.

At least once: a verdict is published before its conversation is committed, and its id derives from
the episode and the component, so a repeat is dropped downstream. A function that raises is a dead
letter `reward_failed`, never a number; its episode stays unrewarded when the deadline passes.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError

from odradek.infra import telemetry
from odradek.infra.bus import (
    PATIENT_S,
    BusSettings,
    KafkaAppender,
    Record,
    check_place,
    close,
    consumer,
    dead_letter,
    record_of,
    require_topics,
    resume,
    start,
)
from odradek.infra.errors import BusError, InfraError
from odradek.infra.named import find
from odradek.infra.signature import JudgeSettings, signed
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord, NoNumber, NotFinite
from odradek.schemas.events import Conversation, Outcome, Reward
from odradek.schemas.numbers import Number, number
from odradek.schemas.topics import CONVERSATIONS, DLQ, REWARDS
from odradek.streams.errors import RewardFailed, RewardRefused

log = logging.getLogger("odradek")

Judge = Callable[[Conversation], Number | Awaitable[Number]]


def load(path: str) -> Judge:
    """The function that `module:function` names; modules of the working folder are found.

    Raises:
        NoSuchName: There is no such thing.
        RewardRefused: It is no function.
    """
    function = find(path)
    if not callable(function):
        raise RewardRefused(f"{path} is not a function")
    return function  # type: ignore[no-any-return] # what a person's module holds has no types


async def judge(function: Judge, conversation: Conversation, timeout_s: float) -> float:
    """What the function says of a conversation.

    Raises RewardFailed if it raises, takes too long or returns no finite number.
    """
    try:
        async with asyncio.timeout(timeout_s):
            if inspect.iscoroutinefunction(function):
                value = await function(conversation)
            else:
                value = await asyncio.to_thread(function, conversation)
                if inspect.isawaitable(value):
                    value = await value
        return number(value, "what it returned")
    # What a user's function raises can be anything; it must neither end the service nor become
    # a number.
    except Exception as error:
        raise RewardFailed(told(error)) from error


def told(error: BaseException) -> str:
    """Type and innermost place of an error: its text may quote what an agent said."""
    if isinstance(error, (NoNumber, NotFinite)):
        return str(error)  # it names a type
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    file = Path(trace.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} at {file}:{trace.tb_lineno}"


class RewardService(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Judges conversations for one component.

    Args:
        bus: Where Kafka is.
        function: Says what a conversation is worth; sync (run in a thread) or async.
        component: The component that it judges.
        agent: Only this agent's conversations; "" for all.
        everything: Also conversations whose task does not ask for the component or that did not
            complete.
        concurrency: How many conversations are judged at once.
        timeout_s: How long one verdict may take.
    """

    def __init__(
        self,
        bus: BusSettings,
        function: Judge,
        component: str,
        *,
        agent: str = "",
        everything: bool = False,
        concurrency: int = 8,
        timeout_s: float = 120.0,
    ) -> None:
        self.bus = bus
        self.ready = asyncio.Event()
        self._function = function
        self._component = component
        self._agent = agent
        self._everything = everything
        self._slots = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._stop = asyncio.Event()
        self._fatal: BaseException | None = None
        self._reader: AIOKafkaConsumer = None
        self._appender: KafkaAppender | None = None
        self._partitions = 0
        self._keys = JudgeSettings().checked()

    def stop(self) -> None:
        """End after what is under way."""
        self._stop.set()

    async def run(self) -> None:
        """Judge until `stop()`. Raises BusError if Kafka cannot be reached or used."""
        await require_topics(self.bus, [CONVERSATIONS.name, REWARDS.name, DLQ.name])
        self._appender = await KafkaAppender.connect(self.bus, timeout_s=PATIENT_S)
        self._reader = consumer(self.bus, group=f"reward-{self._component}")
        self._reader.subscribe([self.bus.topic(CONVERSATIONS.name)], listener=self)
        try:
            await start(self._reader, self.bus)
            while not self._stop.is_set():
                await self._poll()
        finally:
            await close(self._reader)
            await self._appender.aclose()

    async def _poll(self) -> None:
        try:
            fetched = await self._reader.getmany(timeout_ms=200, max_records=self._concurrency * 4)
        except NoOffsetForPartitionError:
            fetched = {}
            await asyncio.sleep(0.01)
        except KafkaError as error:
            raise BusError(f"conversations cannot be read: {error!r}") from error
        if self._fatal is not None:
            raise self._fatal
        if not fetched:
            return
        records = [record_of(one, self.bus) for many in fetched.values() for one in many]
        await asyncio.gather(*(self._take(record) for record in records))
        # If we die above this line the same conversations are judged again, under the same ids.
        try:
            await self._reader.commit(
                {partition: many[-1].offset + 1 for partition, many in fetched.items()}
            )
        except KafkaError as error:
            log.warning("reward %s: commit refused: %r", self._component, error)

    async def _take(self, record: Record) -> None:
        async with self._slots:
            assert self._appender is not None
            consumer_name = f"reward-{self._component}"
            try:
                conversation: Conversation = codec.decode(
                    record.value, Conversation, max_bytes=CONVERSATIONS.max_bytes
                )
                check_place(record, self._partitions)
                if record.key != conversation.episode_id:
                    # What is wrong with a record becomes a letter in one place, below.
                    raise InvalidRecord("wrong_key", "the record's key is not its episode_id")  # noqa: TRY301 - see above
                if not self._wants(conversation):
                    return
                value = await judge(self._function, conversation, self._timeout_s)
            except InvalidRecord as error:
                await dead_letter(
                    self._appender, record, error.reason, error.detail, consumer=consumer_name
                )
            except RewardFailed as error:
                # Without its traceback: that may quote what an agent said.
                log.error("reward %s failed on %s: %s", self._component, record.key, error)  # noqa: TRY400 - see above
                await dead_letter(
                    self._appender, record, "reward_failed", str(error), consumer=consumer_name
                )
            else:
                await self._publish(conversation, value, telemetry.parent_of(record.headers))

    def _wants(self, conversation: Conversation) -> bool:
        if self._agent and conversation.agent != self._agent:
            return False
        asked = self._component in conversation.wanted
        return self._everything or (asked and conversation.outcome is Outcome.COMPLETED)

    async def _publish(self, conversation: Conversation, verdict: float, trace: str | None) -> None:
        assert self._appender is not None
        episode = conversation.episode_id
        source = f"/reward/{self._component}"
        reward = Reward(episode_id=episode, component=self._component, value=verdict, source=source)
        with telemetry.span("reward.publish", parent=trace, episode=episode) as traceparent:
            value = codec.encode(reward)
            headers = codec.headers(
                reward,
                source=source,
                subject=episode,
                event_id=f"{episode}/reward/{self._component}",
                traceparent=traceparent,
            )
            await self._appender.append(
                REWARDS.name, key=episode, value=value, headers=signed(value, headers, self._keys)
            )

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to give back: verdicts under way are published and judged again elsewhere."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin where the group stands, on a first start at the beginning."""
        try:
            await resume(self._reader, assigned)
            found = self._reader.partitions_for_topic(self.bus.topic(CONVERSATIONS.name))
            self._partitions = len(found or ())
            self.ready.set()
        # aiokafka logs and swallows what this raises; it must end the process.
        except (KafkaError, InfraError) as error:
            self._fatal = error
