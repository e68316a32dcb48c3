"""What an engine's answer becomes: turns for the log, and what its agent gets."""

from collections import Counter
from typing import Final

from odradek.infra.runtime import metrics
from odradek.proxy.calls.agent_replies import JSON, error_answer
from odradek.proxy.calls.call import ModelCall, failure, why
from odradek.proxy.calls.engine_request import EngineAnswer, EngineRequester
from odradek.proxy.calls.side_calls import SideCalls
from odradek.proxy.calls.stream import StreamRelay
from odradek.proxy.dialects import cache_salt
from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.episodes.draft import AgentReply, RecordedReply, TurnDraft
from odradek.proxy.errors import EngineError, ProxyError
from odradek.proxy.log import compose
from odradek.proxy.wire import reply as replies
from odradek.proxy.wire import shapes
from odradek.proxy.wire.body import NULL, UNREADABLE, error_of, wrong
from odradek.proxy.wire.choices import numbered
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.arrays import count
from odradek.schemas.errors import InvalidRecord

BROKEN: Final = 502
"""The status of an answer that the engine called good and that is none."""


class ReplyCapture:
    """Captures the answers of engines.

    Args:
        side_calls: Tells calls beside the task from the others.
    """

    def __init__(self, side_calls: SideCalls) -> None:
        self.failed: Counter[str] = Counter()
        """Calls that no engine answered well, by the error's code."""
        self._side_calls = side_calls

    def reply(
        self, call: ModelCall, answer: EngineAnswer, requester: EngineRequester
    ) -> RecordedReply | None:
        """The reply, to be recorded; None where it cannot be read and another engine is left."""
        if answer.relay is not None and (answer.raised is not None or answer.good):
            captured, agents = self._streamed(call, answer, answer.relay)
        elif answer.raised is not None:
            error = self._failure(call, answer.raised)
            captured = [CapturedReply(error=why(error, call))]
            agents = error_answer(error, call.request.dialect)
        else:
            captured, agents = whole(answer, call.request)
            if captured[0].error and answer.good:
                unreadable = EngineError(captured[0].error)
                if requester.again(call, unreadable):
                    return None
                self._failure(call, unreadable)
        return RecordedReply(drafts=self._drafts(call, captured, answer.status), answer=agents)

    def _streamed(
        self, call: ModelCall, answer: EngineAnswer, relay: StreamRelay
    ) -> tuple[list[CapturedReply], AgentReply]:
        """What a relay has passed on, chunk by chunk, but for its end."""
        call.relay = relay
        if answer.raised is not None:
            error = self._failure(call, answer.raised)
            if not relay.error:
                relay.broke(error)
            if call.line is None or not call.line.begun:
                return relay.captured(), error_answer(error, call.request.dialect)
        return relay.captured(), relay.answer(answer.status)

    def _failure(self, call: ModelCall, raised: Exception) -> ProxyError:
        """What went wrong at the engine, counted."""
        error = failure(raised, call)
        self.failed[error.code] += 1
        call.error_code = error.code
        metrics.moved(metrics.FAILED, code=error.code)
        return error

    def _drafts(
        self, call: ModelCall, captured: list[CapturedReply], status: int
    ) -> tuple[TurnDraft, ...]:
        """A turn for each choice of the reply, with all that the call knows of it."""
        side_calls = self._side_calls
        aside, without_tools = side_calls.why(call), side_calls.without_tools(call)
        timing, gone, sent = call.timing(), call.gone, call.sent
        if sent is not None:
            sent.heard([choice.versions for choice in captured])
            for choice in captured:
                choice.versions = sent.spans(choice.versions, count(choice.completion.ids))
        for choice in captured:
            choice.untrainable = choice.untrainable or call.doubt
        return tuple(
            compose.draft(
                call.request.of(choice.choice),
                choice,
                status=status,
                aside=aside,
                inferred=sent.inferred if sent else None,
                source=call.prompt_source,
                traceparent=call.traceparent,
                agent=call.permit.agent,
                timing=timing,
                retry_count=call.retries,
                disconnected=gone,
                supersedes=call.supersedes[place] if place < len(call.supersedes) else "",
                cache_salt=sent.salt if sent else None,
                without_tools=without_tools,
            )
            for place, choice in enumerate(captured)
        )


def whole(answer: EngineAnswer, request: ParsedRequest) -> tuple[list[CapturedReply], AgentReply]:
    """An answer in one piece: choice by choice for the log, and as its agent gets it."""
    dialect, status, headers, body = request.dialect, answer.status, answer.headers, answer.body
    if not answer.good:
        # What sends its caller elsewhere is no answer to an agent either.
        refused = status if status >= 400 else BROKEN
        chunk = dialect.refusal(cache_salt.redacted_body(body), refused)
        reply = AgentReply(status=refused, headers=headers | JSON, chunks=(chunk,))
        return [CapturedReply(error=error_of(body, status))], reply
    words = True
    try:
        regular = numbered(shapes.whole(body, dialect.read, request.digest), request.choices)
        captured = replies.choices(regular)
        # A field that only a dialect reads may be what cannot be read.
        chunk = b"" if captured[0].error else dialect.reply(regular.data, request)
    except (InvalidRecord, *UNREADABLE) as error:
        captured = [replies.unreadable(error)]
    else:
        if not captured[0].error:
            # Clients read what calls itself something else as text.
            if not headers.get("Content-Type", "").startswith("application/json"):
                headers = headers | JSON
            return captured, AgentReply(status=status, headers=headers, chunks=(chunk,))
        words = regular.body.error != NULL or not regular.body.choices
    chunk = (
        dialect.refusal(cache_salt.redacted_body(body), BROKEN)
        if cache_salt.FIELD in body or (words and wrong(body))
        else dialect.error(EngineError(captured[0].error))
    )
    headers = headers | JSON | {"Retry-After": "1"}
    return captured, AgentReply(status=BROKEN, headers=headers, chunks=(chunk,))
