"""Saved results of verifiers (PrimeIntellect-ai/verifiers): a rollout a line. Pure.

Fields are those of its `RolloutOutput`. Tokens are in the column `trajectory`, which is saved only
where it was asked for (`state_columns`): each of its steps is a model call.
"""

from typing import Any, Final

import msgspec

from odradek.infra.app.imports.recording import RecordedTokens, RecordedTurn, Recording
from odradek.infra.app.imports.turns import (
    REPLY,
    Histories,
    messages_of,
    number_of,
    reward_of,
    text_of,
    tokens_of,
    turns_of,
)
from odradek.infra.errors import BadRecording
from odradek.schemas.events import Outcome

Object = dict[str, Any]
SIGNS: Final = frozenset({"task", "info", "answer", "metrics", "timing", "stop_condition"})
"""Fields of which a rollout has some, and a mere conversation none."""
LONGEST: Final = 2000
"""Characters of an error that are kept."""


def fits(record: Object) -> bool:
    """Whether a record looks like one of this format."""
    spoken = {"prompt", "completion"} <= record.keys()
    scored = "reward" in record and not SIGNS.isdisjoint(record)
    return spoken and ("example_id" in record or scored)


def parse(record: Object) -> Recording:
    """The episode of a rollout. Raises BadRecording."""
    reward = reward_of(record.get("reward"))
    metrics = record.get("metrics")
    components = {
        name: number
        for name, value in (metrics.items() if isinstance(metrics, dict) else ())
        if (number := number_of(value)) is not None
    }
    if reward is not None:
        components["reward"] = reward
    error = _error(record.get("error"))
    task = text_of(record.get("task"))
    example = text_of(record.get("example_id"))
    started = _started(record.get("timing"))
    return Recording(
        item="/".join(filter(None, (task, example))),
        agent=task,
        input={name: _unpacked(record[name]) for name in ("info", "answer") if record.get(name)}
        or None,
        turns=_steps(record.get("trajectory")) or _words(record),
        reward=reward,
        components=dict(sorted(components.items())),
        outcome=Outcome.FAILED if error else Outcome.COMPLETED,
        error=error,
        opened_at=started,
        closed_at=started,
    )


def _words(record: Object) -> tuple[RecordedTurn, ...]:
    tools = next(
        (record[name] for name in ("tool_defs", "oai_tools", "tools") if record.get(name)), None
    )
    messages = messages_of(record.get("prompt"), "prompt")
    replies = messages_of(record.get("completion"), "completion", role=REPLY)
    return turns_of([*messages, *replies], _unpacked(tools))


def _steps(trajectory: Any) -> tuple[RecordedTurn, ...]:
    """The turns of a trajectory; none where it is not there."""
    if not isinstance(trajectory, list):
        return ()
    histories = Histories()
    for at, step in enumerate(trajectory):
        if not isinstance(step, dict):
            raise BadRecording(f"trajectory[{at}] is no object")
        prompt = messages_of(step.get("prompt"), f"trajectory[{at}].prompt")
        said = messages_of(step.get("completion"), f"trajectory[{at}].completion", role=REPLY)
        if not said:
            raise BadRecording(f"trajectory[{at}] has an empty completion")
        cut = bool(step.get("is_truncated"))
        histories.add(
            [*prompt, *said[:-1]],
            said[-1],
            tokens=_tokens(step.get("tokens")),
            finish_reason="length" if cut else None,
        )
    return tuple(histories.turns)


def _tokens(tokens: Any) -> RecordedTokens | None:
    if not isinstance(tokens, dict):
        return None
    mask = tokens.get("completion_mask")
    if isinstance(mask, list) and not all(mask):
        return None  # not all of it was sampled
    return tokens_of(
        tokens.get("prompt_ids"), tokens.get("completion_ids"), tokens.get("completion_logprobs")
    )


def _error(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("error_chain_str") or error.get("error") or "error"
    return str(error)[:LONGEST] if error else ""


def _started(timing: Any) -> float:
    started = number_of(timing.get("start_time")) if isinstance(timing, dict) else None
    return max(0.0, started or 0.0)


def _unpacked(value: Any) -> Any:
    """A value that older releases saved as JSON within a text."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value
