"""Writers with a planted fault: records and offsets are committed one after the other."""

from typing import Any

from odradek.infra.bus import FencedWriter


class OffsetsFirst(FencedWriter):
    """The offsets stand before the results do: a death between the two loses results."""

    async def _transaction(self, records: Any, offsets: Any) -> None:
        await self._client.begin_transaction()
        await self._send_offsets(offsets)
        await self._client.commit_transaction()
        self._at("after_commit")
        await self._client.begin_transaction()
        await self._produce(records)
        await self._client.commit_transaction()


class RecordsFirst(FencedWriter):
    """The results stand before the offsets do: a death between the two doubles results."""

    async def _transaction(self, records: Any, offsets: Any) -> None:
        await self._client.begin_transaction()
        await self._produce(records)
        await self._client.commit_transaction()
        self._at("after_commit")
        await self._client.begin_transaction()
        await self._send_offsets(offsets)
        await self._client.commit_transaction()
