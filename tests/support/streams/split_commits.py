"""Writers with a planted fault: records and offsets are committed one after the other."""

from collections.abc import Awaitable, Callable
from typing import Any

from odradek.infra.bus import FencedWriter

Work = Callable[[], Awaitable[None]]
"""What is written in a transaction."""


class SplitWriter(FencedWriter):
    """Commits in two transactions what belongs into one."""

    async def _split(self, first: Work, second: Work) -> None:
        await self._client.begin_transaction()
        await first()
        await self._client.commit_transaction()
        self._at("after_commit")
        await self._client.begin_transaction()
        await second()
        await self._client.commit_transaction()


class OffsetsFirst(SplitWriter):
    """The offsets stand before the results do: a death between the two loses results."""

    async def _transaction(self, records: Any, offsets: Any) -> None:
        await self._split(lambda: self._send_offsets(offsets), lambda: self._produce(records))


class RecordsFirst(SplitWriter):
    """The results stand before the offsets do: a death between the two doubles results."""

    async def _transaction(self, records: Any, offsets: Any) -> None:
        await self._split(lambda: self._produce(records), lambda: self._send_offsets(offsets))
