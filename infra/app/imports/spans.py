"""Spans of Agent Lightning's store (microsoft/agent-lightning), a span a line. Pure.

A rollout's attempt is an episode, and each span with `gen_ai.prompt` or `gen_ai.completion` is a
model call. Token ids and log probabilities are the attributes that its tracers write. Rewards are
its annotations; the last one counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from odradek.infra.app.imports.recording import RecordedTokens, Recording
from odradek.infra.app.imports.turns import Histories, Message, number_of, text_of, tokens_of
from odradek.infra.errors import BadRecording
from odradek.schemas.events import Outcome

Object = dict[str, Any]
PROMPTS: Final = ("gen_ai.prompt", "agentlightning.operation.input.messages")
REPLIES: Final = ("gen_ai.completion", "agentlightning.operation.output.choices")
PROMPT_IDS: Final = (
    "prompt_token_ids",
    "agentlightning.operation.output.prompt_token_ids",
    "llm.hosted_vllm.prompt_token_ids",
)
SAMPLED_IDS: Final = (
    "response_token_ids",
    "agentlightning.operation.output.response_token_ids.0",
    "agentlightning.operation.output.choices.0.token_ids",
    "agentlightning.operation.output.choices.0.provider_specific_fields.token_ids",
    "llm.hosted_vllm.response_token_ids",
)
LOGPROBS: Final = "logprobs.content"
REWARD: Final = "agentlightning.reward"
PRIMARY: Final = "primary"
EXCEPTION: Final = "agentlightning.exception"
AGENTS: Final = ("agent.name", "executor.id", "recipient_agent_type")
DEEPEST: Final = 16
"""Parts of a dotted name that are looked at."""
NANOSECONDS: Final = 1e12
"""A time beyond this is in nanoseconds."""


def fits(record: Object) -> bool:
    """Whether a record looks like one of this format."""
    return {"span_id", "attributes"} <= record.keys()


def key(record: Object) -> tuple[str, str]:
    """The attempt that a span is of. Raises BadRecording."""
    if not fits(record) or not isinstance(record["attributes"], dict):
        raise BadRecording("it is no span: span_id or attributes are missing")
    rollout = text_of(record.get("rollout_id")) or text_of(record.get("trace_id"))
    if not rollout:
        raise BadRecording("it names neither rollout_id nor trace_id")
    return rollout, text_of(record.get("attempt_id"))


def parse(spans: Sequence[Object]) -> Recording:
    """The episode of an attempt's spans. Raises BadRecording."""
    ordered = sorted(spans, key=_order)
    calls = Histories()
    seen: set[str] = set()
    for span in ordered:
        attributes = span["attributes"]
        prompt = list(_messages(attributes, PROMPTS))
        replies = list(_messages(attributes, REPLIES))
        response = text_of(attributes.get("gen_ai.response.id"))
        if not replies or (response and response in seen):
            continue
        seen.add(response)
        below = [each["attributes"] for each in ordered if each.get("parent_id") == span["span_id"]]
        finish = replies[0].pop("finish_reason", None)
        calls.add(
            prompt,
            {"role": "assistant", **replies[0]},
            tokens=next(filter(None, map(_tokens, (attributes, *below))), None),
            finish_reason=finish if isinstance(finish, str) else None,
        )
    if not calls.turns:
        raise BadRecording("none of its spans is a model call with a reply")
    rewards = dict(_rewards(ordered))
    reward = rewards.pop(PRIMARY, None)
    if reward is not None:
        rewards["reward"] = reward
    error = next((_error(span) for span in ordered if span.get("name") == EXCEPTION), "")
    times = [time for span in ordered for time in _times(span)]
    return Recording(
        item="",
        agent=_agent(ordered),
        turns=tuple(calls.turns),
        reward=reward,
        components=dict(sorted(rewards.items())),
        outcome=Outcome.FAILED if error else Outcome.COMPLETED,
        error=error,
        opened_at=min(times, default=0.0),
        closed_at=max(times, default=0.0),
    )


def _order(span: Object) -> tuple[float, float]:
    return number_of(span.get("sequence_id")) or 0.0, number_of(span.get("start_time")) or 0.0


def _messages(attributes: Object, prefixes: Sequence[str]) -> Iterator[Message]:
    """Messages that were flattened, such as `gen_ai.prompt.0.role`."""
    for prefix in prefixes:
        found = unflattened(attributes, prefix)
        if isinstance(found, list):
            for each in found:
                if isinstance(each, dict):
                    yield _message(each)
            return


def _message(found: Object) -> Message:
    inner = found.get("message")  # of a choice
    message = dict(inner) if isinstance(inner, dict) else dict(found)
    if isinstance(inner, dict) and "finish_reason" in found:
        message["finish_reason"] = found["finish_reason"]
    calls = message.pop("tool_calls", None)
    if isinstance(calls, list) and calls:
        message["tool_calls"] = [_call(call) for call in calls if isinstance(call, dict)]
    if "role" not in message:
        message["role"] = "tool" if "tool_call_id" in message else "assistant" if calls else "user"
    if not isinstance(message.get("content"), str | list):
        message["content"] = None
    return message


def _call(call: Object) -> Object:
    function = call.get("function")
    named = function if isinstance(function, dict) else call
    arguments = named.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return {
        "id": text_of(call.get("id")),
        "type": "function",
        "function": {"name": text_of(named.get("name")), "arguments": arguments},
    }


def _tokens(attributes: Object) -> RecordedTokens | None:
    sampled = _first(attributes, SAMPLED_IDS)
    if isinstance(sampled, list) and sampled and isinstance(sampled[0], list):
        sampled = sampled[0]  # of the first choice
    content = _unpacked(attributes.get(LOGPROBS))
    if not isinstance(content, list):
        return None
    logprobs = [each.get("logprob") if isinstance(each, dict) else each for each in content]
    return tokens_of(_first(attributes, PROMPT_IDS), sampled, logprobs)


def _first(attributes: Object, names: Iterable[str]) -> Any:
    found = (_unpacked(attributes[name]) for name in names if attributes.get(name))
    return next(found, None)


def _rewards(spans: Iterable[Object]) -> Iterator[tuple[str, float]]:
    """Names and values, in order: a later one of a name counts."""
    for span in spans:
        attributes = span["attributes"]
        listed = unflattened(attributes, REWARD)
        for at, each in enumerate(listed if isinstance(listed, list) else ()):
            value = number_of(each.get("value")) if isinstance(each, dict) else None
            if value is not None:
                # The first one of a span is what the rollout is worth, whatever it is called.
                yield (PRIMARY if at == 0 else text_of(each.get("name")) or PRIMARY), value
        if span.get("name") == REWARD:
            value = number_of(attributes.get("reward"))
            if value is not None:
                yield PRIMARY, value


def _error(span: Object) -> str:
    message = text_of(span["attributes"].get("exception.message"))
    return (message or "an exception")[:2000]


def _agent(spans: Iterable[Object]) -> str:
    names = (text_of(span["attributes"].get(name)) for span in spans for name in AGENTS)
    return next(filter(None, names), "")


def _times(span: Object) -> Iterator[float]:
    for name in ("start_time", "end_time"):
        time = number_of(span.get(name))
        if time is not None and time > 0:
            yield time / 1e9 if time > NANOSECONDS else time


def _unpacked(value: Any) -> Any:
    """A list, also where it was written as a text."""
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None
    return value


def unflattened(attributes: Object, prefix: str) -> Any:
    """What stands below a dotted prefix: an object, a list where names are numbers, or None."""
    tree: Object = {}
    for name, value in attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        *path, last = name[len(prefix) + 1 :].split(".")
        if len(path) > DEEPEST:
            continue
        node = tree
        for part in path:
            inner = node.setdefault(part, {})
            if not isinstance(inner, dict):
                break  # a value and what stands below it: the value was there first
            node = inner
        else:
            node.setdefault(last, value)
    return _listed(tree) if tree else None


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and any(name.isdecimal() for name in node):
        numbers = sorted(int(name) for name in node if name.isascii() and name.isdecimal())
        return [_listed(node[str(number)]) for number in numbers if str(number) in node]
    return {name: _listed(inner) for name, inner in node.items()}
