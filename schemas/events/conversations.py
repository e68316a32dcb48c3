"""An episode as people and judges read it."""

from typing import Annotated, Any

from msgspec import Meta

from odradek.schemas.events.event import Count, Event, Name, Outcome, Purpose


class ConversationTurn(Event, frozen=True, kw_only=True):
    """One model call of a Conversation: what was new in the request, and the reply."""

    turn_id: str
    base: str = ""
    prefix_len: Count = 0
    messages: list[Any] = []
    tools: Any = None
    reply: Any = None
    finish_reason: str | None = None
    error: str = ""

    @property
    def text(self) -> str:
        """The reply's text, "" where it has none."""
        content = self.reply.get("content") if isinstance(self.reply, dict) else None
        if isinstance(content, list):
            return "".join(part.get("text", "") for part in content if isinstance(part, dict))
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The reply's tool calls, in the shape of the chat completions API."""
        calls = self.reply.get("tool_calls") if isinstance(self.reply, dict) else None
        return calls if isinstance(calls, list) else []


class Conversation(Event, frozen=True, tag="conversation", kw_only=True):
    """A sealed episode as people and judges read it: words, no token arrays."""

    episode_id: Name
    task_id: Name
    agent: str
    sample: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    purpose: Purpose = "train"
    item: str = ""
    input: Any = None
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    reward_components: tuple[str, ...] = ()
    """Reward components that the task asks for."""
    turns: tuple[ConversationTurn, ...] = ()
    parent: str = ""
    """The episode whose agent asked for this one."""

    @property
    def replies(self) -> tuple[ConversationTurn, ...]:
        """Every model call that was answered, in order."""
        return tuple(turn for turn in self.turns if turn.reply is not None)

    @property
    def messages(self) -> list[Any]:
        """The whole history that ends with the last reply."""
        histories: dict[str, list[Any]] = {}
        last: list[Any] = []
        for turn in self.turns:
            last = [*histories.get(turn.base, [])[: turn.prefix_len], *turn.messages]
            if turn.reply is not None:
                last.append(turn.reply)
            histories[turn.turn_id] = last
        return last
