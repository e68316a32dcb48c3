"""Sending a call to the engine, in fields that it takes.

What we write into each call (`dialects/sampling`) are fields of the engine's surface. An engine
that does not know one, or reads its neutral value otherwise, says so with a 400, of one field or of
all: it is asked again without, until it refuses nothing more of ours. No call after that has them.
"""

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.calls.agent_replies import headers
from odradek.proxy.calls.call import ModelCall
from odradek.proxy.calls.keepalive import always
from odradek.proxy.calls.stream import StreamRelay
from odradek.proxy.dialects.cache_salt import redacted
from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.sampling import FORCED, Training
from odradek.proxy.engines.client import EngineResponse, Probe
from odradek.proxy.engines.logprobs_mode import LogprobsMode, doubt
from odradek.proxy.engines.pool import MAX_BROKEN, Pool
from odradek.proxy.engines.refusal import lesser
from odradek.proxy.errors import EngineError
from odradek.schemas.sampling import UNSENT, sampling_of

TIMED_OUT: Final = 408
"""The one status of a request's own faults that is none of them: a server gave up on us."""
REFUSING: Final = frozenset({400, 422})
"""Statuses of an engine that cannot read a request."""
TOLD: Final = frozenset({"echo", "prompt_logprobs", "top_logprobs"})
"""Fields of a client that change what log probabilities there are."""

log = logging.getLogger("odradek.proxy")
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class EngineAnswer(Struct):
    """An engine's answer."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    """Unless a relay has it."""
    raised: Exception | None = None
    """Why there is no answer, or no end of it."""
    relay: StreamRelay | None = None
    """What passes it on while it comes, where the agent is to get a stream."""

    @property
    def good(self) -> bool:
        """Whether the engine itself calls it a reply."""
        return _is_good(self.status)

    @property
    def fault(self) -> Exception | None:
        """The engine's error; None for a reply, and if the request is to blame."""
        blamed = 400 <= self.status < 500 and self.status != TIMED_OUT
        if self.raised is not None or self.good or blamed:
            return self.raised
        return EngineError(f"the engine answered {self.status}")


class EngineRequester:
    """Asks the engines of a pool, which are taken to be alike.

    Args:
        engine: The pool.
        training: What is written into calls, until an engine refuses a part of it.
        salted: Whether they are the policy's, whose versions salt the calls.
    """

    def __init__(self, engine: Pool, training: Training, *, salted: bool = True) -> None:
        self._wanted = training
        self._taken = training
        """What of it the engines take, as far as they have said."""
        self._lives = 0
        self._salted = salted
        self._engine = engine

    @property
    def training(self) -> Training:
        """The fields that are written into calls."""
        if self._taken is not self._wanted and self._lives != self._engine.lives:
            self._taken = self._wanted  # whatever answers there next may be another
        return self._taken

    async def ask(self, call: ModelCall) -> EngineAnswer:
        """What an engine answers; after a failure of which the agent has seen nothing, another.

        What is to be a stream for the agent goes through a relay as it comes.
        """
        line = call.line
        if line is not None:
            line.watch(call.taken)
        while True:
            answer = EngineAnswer(relay=None if line is None else StreamRelay(call, line))
            await self._answer(call, answer)
            # Signs of life are no part of a reply, so another engine may still give it.
            begun = answer.relay is not None and answer.relay.begun
            if begun or not self.again(call, answer.fault):
                break
        if line is not None:
            line.watch(always)
        return answer

    async def _answer(self, call: ModelCall, answer: EngineAnswer) -> None:
        """Fill in what one engine answers."""
        relay = answer.relay
        try:
            async with call.time_left(), await self.send(call) as upstream:
                answer.status = upstream.status
                answer.headers = headers(upstream.headers, call.request)
                if relay is not None and answer.good:
                    await relay.take(upstream, answer.headers)
                else:
                    answer.body = await upstream.read()
        except (EngineError, TimeoutError) as raised:
            answer.raised = raised
        else:
            if relay is not None and relay.error:
                answer.raised = EngineError(redacted(relay.error))

    async def send(self, call: ModelCall) -> EngineResponse:
        """Send a call. Raises EngineError."""
        answer = await self._post(call, call.body)
        if answer.status in REFUSING:
            answer = await self._without(call, answer)
        if answer.proving is not None and _is_good(answer.status):
            mode = answer.proving.mode or await self._proved(answer, answer.proving)
            call.doubt = doubt(mode, call.request.sampling)
        return answer

    async def _proved(self, answer: EngineResponse, proving: Probe) -> LogprobsMode:
        """What an engine's log probabilities are of, which nobody has asked it yet."""
        async with AsyncExitStack() as kept:
            await kept.enter_async_context(answer)
            mode = await proving.prove()
            kept.pop_all()
        return mode

    async def _without(self, call: ModelCall, answer: EngineResponse) -> EngineResponse:
        """The answer to the call without what of ours refusals name; else a refusal."""
        fields = _fields.decode(call.body)
        before = left = _ours(call.request, fields)
        first = answer
        async with AsyncExitStack() as refusals:
            while answer.status in REFUSING:
                await refusals.enter_async_context(answer)
                refusal = await answer.read()
                less = lesser(left, refusal)
                if less is None:
                    # What is left is the client's own mistake, or ours was none.
                    repeated = any(name.encode() in refusal for name in before.keys() - left.keys())
                    return first if repeated else answer
                left = less
                answer = await self._post(call, _rewritten(fields, before, left))
        self._learn(call, fields, before, left)
        return answer

    def _learn(
        self, call: ModelCall, fields: dict[str, Raw], before: dict[str, Any], left: dict[str, Any]
    ) -> None:
        """Let the turn record what the engine took, and later calls have it."""
        odd = _is_odd(call.request, fields)
        call.body = _rewritten(fields, before, left)
        call.request = msgspec.structs.replace(
            call.request,
            training=call.request.training.lessened(before, left),
            sampling=_recorded(call.request.sampling, before, left),
        )
        if odd:
            return
        former = self.training
        self._taken, self._lives = former.lessened(before, left), self._engine.lives
        if self._taken != former:
            names = ", ".join(name for name in before if left.get(name) != before[name])
            log.warning("the engine does not take %s as we wrote it: no call has it so", names)
        if "temperature" in self._taken.lacks - former.lacks:
            log.error("so nobody knows at which temperature it samples: no reply can be trained on")

    async def _post(self, call: ModelCall, body: bytes) -> EngineResponse:
        call.engine = ""
        answer = await self._engine.ask(
            call.path,
            body,
            call.traceparent,
            episode=call.episode.episode_id,
            salt=call.request.salt if self._salted else None,
            tried=call.tried,
            attempt=call.attempt,
        )
        call.sent, call.engine = answer.sent, answer.engine
        return answer

    def again(self, call: ModelCall, raised: Exception | None) -> bool:
        """Whether to ask another engine, since this one began to answer and gave no good reply.

        Not if the agent has seen a part of it. Two engines are asked at most: it may be the call
        that breaks them.
        """
        if not isinstance(raised, EngineError) or not raised.retriable or not call.engine:
            return False
        call.tried.add(call.engine)
        if call.attempts >= MAX_BROKEN or not self._engine.has_other(call.tried):
            return False
        call.attempts += 1
        call.engine = ""
        log.warning("an engine gave no good reply, of which nobody has seen anything: another one")
        return True


def _is_good(status: int) -> bool:
    """Whether an engine calls its answer a reply."""
    return 200 <= status < 300


def _ours(request: ParsedRequest, fields: Mapping[str, Raw]) -> dict[str, Any]:
    """What we wrote into a call, by name; what its client asks for is its own."""
    theirs = dict(
        zip(FORCED, (request.logprobs, request.token_ids, request.weight_versions), strict=True)
    )
    written = request.training.values.items()
    return {name: value for name, value in written if request.sampling.get(name) == value} | {
        name: True for name in FORCED if name in fields and not theirs[name]
    }


def _is_odd(request: ParsedRequest, fields: Mapping[str, Raw]) -> bool:
    """Whether a refusal may come of what the client asks for: then it says nothing of other calls.

    Engines refuse a temperature beside a top_p, or log probabilities of beams and prompts.
    """
    sampling = {name: value for name, value in request.sampling.items() if name != UNSENT}
    return bool(sampling_of(sampling).altered_by or TOLD & fields.keys())


def _rewritten(fields: dict[str, Raw], before: dict[str, Any], left: dict[str, Any]) -> bytes:
    """The call with what is left of ours."""
    made = {name: raw for name, raw in fields.items() if name not in before or name in left}
    changed = {name: value for name, value in left.items() if value != before[name]}
    return msgspec.json.encode({**made, **changed})


def _recorded(
    sampling: dict[str, Any], before: dict[str, Any], left: dict[str, Any]
) -> dict[str, Any]:
    """What a turn records of its sampling then."""
    kept = {name: value for name, value in sampling.items() if name not in before or name in left}
    kept |= {name: value for name, value in left.items() if name in sampling}
    return kept if "temperature" not in before.keys() - left.keys() else {**kept, UNSENT: True}
