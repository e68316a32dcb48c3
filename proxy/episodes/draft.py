"""A reply between its end and the log: the turns that it becomes, and what its agent gets."""

from msgspec import Struct

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.episodes.prefix_reuse import PromptSource
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.events import Timing


class TurnDraft(Struct, kw_only=True):
    """A turn before it has a place in the log."""

    request: ParsedRequest
    captured: CapturedReply
    status: int = 0
    agent: str = ""
    timing: Timing = Timing()
    retries: int = 0
    disconnected: bool = False
    supersedes: str = ""
    inferred: int | None = None
    """The older of the versions known at the call's start and end."""
    salt: int | None = None
    """The version that the call's salt stands for."""
    traceparent: str | None = None
    standing: PromptSource | None = None
    aside: str = ""
    """Why it is not trained on whatever it holds."""
    without_tools: bool = False
    media: int | None = None
    """Which of its messages, its reply the last of them, is the first that is more than text."""
    turn_id: str = ""
    """Set once the turn has its number; "" means that the log never saw it."""


class AgentReply(Struct, frozen=True, kw_only=True):
    """The agent's reply, sent once the log has the turn."""

    status: int
    headers: dict[str, str]
    chunks: tuple[bytes, ...]
    streamed: bool = False

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(map(len, self.chunks))


class RecordedReply(Struct, frozen=True, kw_only=True):
    """A reply and the turn that it became; kept where its client did not get it."""

    drafts: tuple[TurnDraft, ...]
    """One for each of its choices."""
    answer: AgentReply

    @property
    def size(self) -> int:
        """Bytes that it holds: the request, as it came and as it went, and the reply."""
        found = 2 * len(self.drafts[0].request.body) + self.answer.size
        return found + sum(draft.captured.size for draft in self.drafts)

    @property
    def digest(self) -> str:
        """Of the request."""
        return self.drafts[0].request.digest

    @property
    def standing(self) -> tuple[str, ...]:
        """The turns that it became, choice by choice; "" for one that does not count, since cut."""
        return tuple("" if draft.disconnected else draft.turn_id for draft in self.drafts)

    @property
    def error(self) -> str:
        """Its error in words."""
        return self.drafts[0].captured.error
