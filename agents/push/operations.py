"""The four operations on push notification configs, as a host serves them (A2A 3.1.7 to 3.1.10)."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from a2a.types import ListTaskPushNotificationConfigsResponse
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotFoundError,
)
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import ParseError

from odradek.agents.binding.operations import CREATE_PUSH, DELETE_PUSH, GET_PUSH, LIST_PUSH
from odradek.agents.errors import WebhookRefused
from odradek.agents.push.addresses import WebhookRules
from odradek.agents.push.configs import (
    MOST,
    ConfigBook,
    TaskConfigs,
    config_of,
    configs_record,
    recall_configs,
)
from odradek.agents.push.resolver import VettedResolver
from odradek.agents.push.signatures import name_of
from odradek.infra.bus import BusSettings, OutgoingRecord, TransactionalWriter

LONGEST: Final = 4096
"""Characters of a token, or of credentials."""
VALUE: Final = re.compile(r"[\x20-\x7e]*")
"""What an HTTP header can carry, and no line end."""
SCHEME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")
"""An authentication scheme (RFC 9110, 11.1)."""
ID: Final = re.compile(r"[\x21-\x7e]{0,128}")

Generation = Callable[[str], Awaitable[int]]
"""The generation of a task. Raises TaskNotFoundError."""


class PushOperations:
    """Keeps the push notification configs of an agent's tasks.

    Args:
        agent: The agent's name.
        bus: Where Kafka is.
        hosts: `webhook_hosts`.
        served: Whether the agent takes such configs: a dispatcher posts them (`odradek push`).
    """

    def __init__(self, agent: str, bus: BusSettings, *, hosts: str, served: bool) -> None:
        self._agent = agent
        self._bus = bus
        self._served = served
        self._resolver = VettedResolver(WebhookRules(hosts, bus.bootstrap_servers))

    async def recall(self, partition: int) -> ConfigBook:
        """The configs of a partition that this host takes over."""
        if not self._served:
            return ConfigBook()
        return await recall_configs(self._bus, self._agent, partition)

    async def serve(
        self,
        book: ConfigBook,
        writer: TransactionalWriter,
        partition: int,
        operation: str,
        request: Any,
        generation: Generation,
    ) -> Any:
        """Answer one of the four operations. Raises A2AError, PartitionLost.

        Args:
            book: The configs of the partition's tasks.
            writer: Writes as the partition's owner.
            partition: Its number.
            operation: Which.
            request: Its message.
            generation: Says what a task's generation is.
        """
        if not self._served:
            raise PushNotificationNotSupportedError
        current = await generation(request.task_id)
        configs = book.of_task(request.task_id)
        if operation == CREATE_PUSH:
            config = await self._checked(request)
            changed = _with(configs, config, current)
            await self._keep(book, writer, partition, request.task_id, configs, changed)
            return changed.find(config.id)
        if operation == DELETE_PUSH:
            changed = configs.without(request.id)
            await self._keep(book, writer, partition, request.task_id, configs, changed)
            return Empty()
        if operation == GET_PUSH:
            kept = configs.find(request.id)
            if kept is None:
                raise TaskNotFoundError(f"the task has no push notification config {request.id!r}")
            return kept
        assert operation == LIST_PUSH
        return ListTaskPushNotificationConfigsResponse(configs=configs.configs)

    async def check(self, value: bytes) -> Any:
        """The config in the configuration of a message. Raises A2AError."""
        if not self._served:
            raise PushNotificationNotSupportedError
        try:
            config = config_of(value)
        except (ParseError, ValueError, RecursionError):
            raise InvalidParamsError("the push notification config cannot be read") from None
        return await self._checked(config)

    def begin(
        self, book: ConfigBook, config: Any, task_id: str, partition: int
    ) -> tuple[OutgoingRecord, ...]:
        """The record, if any, of the config with which a task begins; it is kept from here on."""
        if config is None:
            return ()
        named = type(config)()
        named.CopyFrom(config)
        named.task_id = task_id
        configs = TaskConfigs().put(named, 0)
        book.put(task_id, configs)
        return (configs_record(self._agent, task_id, configs, partition=partition),)

    async def _checked(self, config: Any) -> Any:
        """A config that may be kept, with an id. Raises InvalidParamsError."""
        try:
            await self._resolver.check(config.url)
        except WebhookRefused as error:
            raise InvalidParamsError(f"the webhook is refused: {error}") from None
        given = config.authentication
        texts = {"token": config.token, "authentication.credentials": given.credentials}
        for name, text in texts.items():
            if len(text) > LONGEST or not VALUE.fullmatch(text):
                raise InvalidParamsError(f"{name} must be up to {LONGEST} visible ASCII characters")
        if not SCHEME.fullmatch(given.scheme) or not ID.fullmatch(config.id):
            raise InvalidParamsError("authentication.scheme and id must be words in ASCII")
        kept = type(config)()
        kept.CopyFrom(config)
        # The same request, when it is read again after a crash, makes the same config.
        kept.id = kept.id or name_of(kept.url)
        return kept

    async def _keep(
        self,
        book: ConfigBook,
        writer: TransactionalWriter,
        partition: int,
        task_id: str,
        before: TaskConfigs,
        after: TaskConfigs,
    ) -> None:
        if after == before:
            return
        # If we die above this line, the request comes again. Below it, the config is there for the
        # dispatcher, which looks at the end of this topic before it passes an event.
        await writer.write(configs_record(self._agent, task_id, after, partition=partition))
        book.put(task_id, after)


def _with(configs: TaskConfigs, config: Any, generation: int) -> TaskConfigs:
    changed = configs.put(config, generation)
    if len(changed.configs) > MOST:
        raise InvalidParamsError(f"a task has at most {MOST} push notification configs")
    return changed
