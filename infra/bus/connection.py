"""A defect of aiokafka's connections under uvloop, mended in one place."""

from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def mend() -> None:
    """Make a request on a connection that was just reset an error that clients retry.

    aiokafka writes to the connection without asking whether it still stands, and expects an
    OSError. asyncio's transport takes such bytes silently, uvloop's raises RuntimeError: that ended
    the sender of a producer, so that one reset connection made every later append fail, for ever.
    """
    send = AIOKafkaConnection.send
    if hasattr(send, "__wrapped__"):
        return

    @wraps(send)
    def standing(self: Any, request: Any, expect_response: bool = True) -> Any:
        writer = self._writer
        if writer is not None and writer.transport.is_closing():
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken")
        return send(self, request, expect_response)

    AIOKafkaConnection.send = standing
