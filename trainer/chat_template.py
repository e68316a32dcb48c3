"""Whether a chat template only appends: what that does to an episode, said before it happens.

The assembler joins a turn to the one before only if its prompt begins with exactly that turn's ids.
An engine renders a conversation anew for each call. So a template that renders earlier messages
otherwise once more follow breaks an episode into several sequences, and the trainer reads what they
have in common once for each. Here a template renders the kinds of conversation that agents have,
message by message. Pure: the rendering is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], Sequence[Any] | None, bool], Sequence[int]]
"""Token ids of messages with these tools; with True those that a reply begins with follow.

Raises TemplateRefusal where the template takes no such messages."""
Outcome = Literal["appends", "prompt", "history", "refused"]
"""It only appends; what a reply's prompt ends with is rendered otherwise once the reply is there;
earlier messages are rendered otherwise once more follow; it takes no such conversation."""


class TemplateRefusal(ValueError):
    """A template does not take some messages."""


@dataclass(frozen=True)
class Exchange:
    """A kind of conversation.

    Attributes:
        name: In words, as the line at the start has it.
        messages: Each a prefix of what an agent sends in the end.
        tools: That are offered.
    """

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True)
class TemplateFinding:
    """What a template does with a kind of conversation.

    Attributes:
        name: Of the kind.
        outcome: See `Outcome`.
        messages: How many messages there are where that shows; 0 where it never does.
        reason: Of a refusal, in the template's words.
    """

    name: str
    outcome: Outcome
    messages: int = 0
    reason: str = ""


def _call(number: int) -> dict[str, Any]:
    function = {"name": "guess", "arguments": {"number": number}}
    return {"id": f"call{number:05}", "type": "function", "function": function}


_GUESS: Final = {
    "type": "function",
    "function": {
        "name": "guess",
        "description": "Guess the number.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
    },
}
_ASK: Final = {"role": "user", "content": "Find the number."}
_THOUGHT: Final = {"reasoning_content": "The middle is best."}


def _asked(number: int, **more: str) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [_call(number)], **more}


def _answered(number: int, text: str) -> dict[str, str]:
    return {"role": "tool", "name": "guess", "tool_call_id": f"call{number:05}", "content": text}


EXCHANGES: Final = (
    Exchange(
        "a message after a reply",
        (
            _ASK,
            {"role": "assistant", "content": "Is it 5?"},
            {"role": "user", "content": "Lower."},
            {"role": "assistant", "content": "Is it 2?"},
            {"role": "user", "content": "Higher."},
        ),
    ),
    Exchange(
        "a system message",
        (
            {"role": "system", "content": "You play a game."},
            _ASK,
            {"role": "assistant", "content": "Is it 5?"},
            {"role": "user", "content": "Lower."},
        ),
    ),
    Exchange(
        "results of tools",
        (_ASK, _asked(5), _answered(5, "lower"), _asked(2), _answered(2, "right")),
        (_GUESS,),
    ),
    Exchange(
        "a message after reasoning",
        (
            _ASK,
            {"role": "assistant", "content": "Is it 5?", **_THOUGHT},
            {"role": "user", "content": "Lower."},
        ),
    ),
    Exchange(
        "results of tools after reasoning",
        (_ASK, _asked(5, **_THOUGHT), _answered(5, "lower"), _asked(2, **_THOUGHT)),
        (_GUESS,),
    ),
)
"""The kinds of conversation that agents have, from the plainest on."""


def findings(render: Render, exchanges: Sequence[Exchange] = EXCHANGES) -> list[TemplateFinding]:
    """What a template does with each kind of conversation."""
    return [_finding(render, exchange) for exchange in exchanges]


def _finding(render: Render, exchange: Exchange) -> TemplateFinding:
    messages, tools = exchange.messages, exchange.tools or None
    asked = next(n for n, message in enumerate(messages, 1) if message["role"] == "user")
    worst = TemplateFinding(exchange.name, "appends")
    try:
        before = prompt = render(messages[:asked], tools, False)
        for n in range(asked + 1, len(messages) + 1):
            if messages[n - 1]["role"] == "assistant":
                prompt = render(messages[: n - 1], tools, True)
            now = render(messages[:n], tools, False)
            if not _begins(now, before):
                return TemplateFinding(exchange.name, "history", n)
            if not _begins(now, prompt) and worst.outcome == "appends":
                worst = TemplateFinding(exchange.name, "prompt", n)
            before = now
    except TemplateRefusal as error:
        return TemplateFinding(exchange.name, "refused", reason=str(error))
    return worst


def _begins(ids: Sequence[int], start: Sequence[int]) -> bool:
    return list(ids[: len(start)]) == list(start)


def line(made: Sequence[TemplateFinding]) -> str:
    """What findings mean for episodes, in one line for people."""
    rewritten, prompts = _names(made, "history"), _names(made, "prompt")
    parts = []
    if rewritten:
        parts.append(
            f"history is re-rendered with {rewritten}: episodes break there into sequences, each "
            "of which is trained on"
        )
    if prompts:
        parts.append(
            f"the end of a prompt is left out of the history with {prompts}: episodes break at "
            "each reply, unless ODRADEK_PROXY_CONTINUATION is bridge"
        )
    if refused := [finding for finding in made if finding.outcome == "refused"]:
        reasons = "; ".join(dict.fromkeys(finding.reason for finding in refused))
        parts.append(f"the template refuses {_names(made, 'refused')} ({reasons})")
    if not rewritten and not prompts and len(refused) < len(made):
        parts.insert(0, "it only appends: turns that continue each other are one sequence")
    return "chat template: " + "; ".join(parts)


def _names(made: Sequence[TemplateFinding], outcome: Outcome) -> str:
    names = [finding.name for finding in made if finding.outcome == outcome]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
