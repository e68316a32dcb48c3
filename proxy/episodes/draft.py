"""A reply between its end and the log: the turns that it becomes, and what its agent gets."""

import msgspec
from msgspec import Struct

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.episodes.prefix_reuse import PromptSource
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.events import Turn


class TurnDraft(Struct, kw_only=True):
    """A turn before it has a place in the log; `log.compose` makes it."""

    turn: Turn
    """All of it but its episode, its number, and what an earlier turn holds already."""
    request: ParsedRequest
    captured: CapturedReply
    aside: str = ""
    """Why it is not trained on whatever it holds."""
    traceparent: str | None = None
    source: PromptSource | None = None
    """How its prompt came about, where prompts carry ids on."""
    media: int | None = None
    """Which of its messages, its reply the last of them, is the first that is more than text."""
    turn_id: str = ""
    """Set once the turn has its number; "" means that the log never saw it."""

    def again(self, *, retries: int) -> None:
        """Another turn for the same reply: one that counts, and stands in for the one before."""
        supersedes, self.turn_id = self.turn_id or self.turn.supersedes, ""
        self.turn = msgspec.structs.replace(
            self.turn, disconnected=False, retry_count=retries, supersedes=supersedes
        )


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
        requests = 2 * len(self.drafts[0].request.body)
        return requests + self.answer.size + sum(draft.captured.size for draft in self.drafts)

    @property
    def digest(self) -> str:
        """Of the request."""
        return self.drafts[0].request.digest

    @property
    def turn_ids(self) -> tuple[str, ...]:
        """The turns that it became, choice by choice; "" for one that does not count, since cut."""
        return tuple("" if draft.turn.disconnected else draft.turn_id for draft in self.drafts)

    @property
    def error(self) -> str:
        """Its error in words."""
        return self.drafts[0].captured.error
