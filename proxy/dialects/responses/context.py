"""The fields of a request to `/v1/responses` that its reply needs."""

from typing import Any, Final

from msgspec import Raw, Struct

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.tools import freeform
from odradek.proxy.dialects.tools.names import Names
from odradek.proxy.dialects.translation import parts
from odradek.proxy.wire.reply import CapturedReply

PREFIX: Final = "resp_"


class ResponsesContext(Struct, frozen=True):
    """The fields of a request that its reply needs."""

    echo: dict[str, Any]
    """Fields that a response repeats."""
    chain: tuple[Raw, ...]
    """The conversation that it goes on from."""
    preceding: int
    """How many messages come before the input: the instructions, and the chain."""
    logprobs: bool
    store: bool
    names: Names = Names()
    """Which tools the model's calls are for."""
    opaque: bool = False
    """Whether reasoning goes out in a form that the client hands back."""
    compacts: bool = False
    """Whether the reply is a summary."""
    users: tuple[dict[str, Any], ...] = ()
    """The users' messages, which a summary keeps."""

    def remember(self, memory: ReplyStore, request: ParsedRequest, captured: CapturedReply) -> None:
        """Keep the conversation, without instructions, under the response's id; and its calls."""
        memory.learn(captured.reply.message, freeform.values(self.names))
        if not self.store:
            return
        # Copied, else the memory would hold the whole request.
        new = tuple(message.copy() for message in request.messages[self.preceding :])
        messages = (*self.chain, *new, captured.reply.message)
        memory.keep(name(captured.id, request), messages)


def context(request: ParsedRequest) -> ResponsesContext:
    """The request in the dialect's own terms."""
    return request.origin  # type: ignore[return-value]  # only our own requests come here


def name(engine_id: str, request: ParsedRequest) -> str:
    """A response's name."""
    return PREFIX + parts.identity(engine_id, request)
