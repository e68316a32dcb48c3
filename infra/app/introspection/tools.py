"""Calls of tools in an episode, joined with the results that came back. Pure.

A reply asks for a call, the agent makes it, and its result is a message of a later request. The log
has no times of tools: `wait_s` is what lay between the end of the reply and the beginning of the
model call that brought the result, the agent's own work among it.
"""

from collections.abc import Sequence

from msgspec import Struct

from odradek.infra.app.introspection.failures import failure_of
from odradek.infra.app.introspection.lines import ReadTurn, call_digest, clipped


class CalledTool(Struct, frozen=True, kw_only=True):
    """A call of a tool."""

    name: str
    arguments: str
    """Their beginning."""
    digest: str
    """Of the name and all arguments: equal calls have equal ones."""
    at: str
    """Of the turn whose reply asked for it."""
    answered_at: str = ""
    """Of the turn whose request brought the result; empty where none did."""
    failure: str = ""
    """The kind of the error that the result was."""
    wait_s: float | None = None
    result_chars: int = 0


class _Open(Struct, frozen=True):
    """A call that waits for its result."""

    place: int
    """Of its use in the list of all."""
    ended: float
    """When its reply ended, Unix seconds; 0 where nobody knows."""


def tool_uses(turns: Sequence[ReadTurn]) -> tuple[CalledTool, ...]:
    """All calls of tools, in order.

    Args:
        turns: In the order in which they were sent.
    """
    uses: list[CalledTool] = []
    waiting: dict[str, _Open] = {}
    for one in turns:
        timing = one.turn.timing
        for row in one.new:
            call = waiting.pop(row["tool_call_id"] or "", None) if row["role"] == "tool" else None
            if call is None:
                continue
            known = bool(call.ended and timing.started_at)
            text = row["content"]
            uses[call.place] = _answered(
                uses[call.place], one.at, text, timing.started_at - call.ended if known else None
            )
        if one.reply is None:
            continue
        ended = timing.started_at + timing.total_ms / 1000 if timing.started_at else 0.0
        for asked in one.reply["tool_calls"] or ():
            function = asked["function"]
            if asked["id"]:
                waiting[asked["id"]] = _Open(len(uses), ended)
            uses.append(
                CalledTool(
                    name=function["name"],
                    arguments=clipped(function["arguments"]),
                    digest=call_digest(asked),
                    at=one.at,
                )
            )
    return tuple(uses)


def _answered(use: CalledTool, at: str, text: str, wait_s: float | None) -> CalledTool:
    return CalledTool(
        name=use.name,
        arguments=use.arguments,
        digest=use.digest,
        at=use.at,
        answered_at=at,
        failure=failure_of(text),
        wait_s=None if wait_s is None else max(0.0, wait_s),
        result_chars=len(text),
    )


def failing_runs(uses: Sequence[CalledTool]) -> tuple[tuple[CalledTool, ...], ...]:
    """For each call that failed more than once in a row, its longest run of failures.

    In between there may be other calls; an equal one that worked ends the run.
    """
    now: dict[str, list[CalledTool]] = {}
    longest: dict[str, list[CalledTool]] = {}
    for use in uses:
        if not use.answered_at:
            continue
        run = now.setdefault(use.digest, [])
        if not use.failure:
            run.clear()
            continue
        run.append(use)
        if len(run) > max(1, len(longest.get(use.digest, ()))):
            longest[use.digest] = list(run)
    return tuple(map(tuple, longest.values()))
