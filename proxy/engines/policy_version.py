"""The policy version in force, as the log has it, and the engines that serve it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from aiokafka.errors import KafkaError

from odradek.infra.bus import BusSettings, Record, follow, passed_over
from odradek.infra.client import subscribe
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import LORA, Policy
from odradek.schemas.topics import POLICIES

AGAIN_S: Final = 2.0
log = logging.getLogger("odradek.proxy")


class PolicyVersions:
    """Follows one policy's versions. Implements `serving.Versions`."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.current: int | None = None
        """The newest version, None until the log has one."""
        self.engines: Mapping[str, int] = {}
        """By address, the version that each engine had then."""
        self.adapter = ""
        """What the names of the policy's adapters begin with; "" where its weights are whole."""

    def take(self, record: Record) -> None:
        """Read a record of the topic; records other than our Policy change nothing."""
        try:
            policy = codec.decode(record.value, Policy)
        except InvalidRecord as error:
            if record.value is not None:  # a tombstone is compaction's business
                passed_over(record, error)
            return
        self._take(policy)

    def _take(self, policy: Policy) -> None:
        if policy.name == self.policy and policy.version >= (self.current or 0):
            self.current, self.engines = policy.version, policy.engines
            self.adapter = policy.name if policy.format == LORA else ""

    async def catch_up(self, bus: BusSettings) -> None:
        """Read what the log holds by now. Raises InfraError.

        A proxy that begins without it would take its engines' weights for those of nobody.
        """
        async for policy in subscribe(
            POLICIES.name, since="beginning", follow=False, bus=bus, where={"name": self.policy}
        ):
            self._take(policy)

    async def follow(self, bus: BusSettings) -> None:
        """Read the topic for ever; a broker that is away is asked again."""
        while True:
            try:
                async for record in follow(bus, POLICIES.name):
                    self.take(record)
            except (BusError, KafkaError) as error:
                log.warning("policy versions cannot be read, trying again: %s", error)
                await asyncio.sleep(AGAIN_S)
