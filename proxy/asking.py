"""Sending a call to the engine, in fields that it takes.

What we write into each call (`dialects/sampling`) is vLLM's. An engine that does not know a field,
or reads its neutral value otherwise, says so with a 400: it is asked again without, and no call
after that one has it.
"""

import logging
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.call import Call
from odradek.proxy.dialects.sampling import Training
from odradek.proxy.errors import EngineError
from odradek.proxy.logprobs import Mode, Proving, doubt
from odradek.proxy.pool import MAX_BROKEN, Pool
from odradek.proxy.upstream import Incoming

OK: Final = 200
REFUSING: Final = frozenset({400, 422})
"""Statuses of an engine that cannot read a request."""

log = logging.getLogger("odradek.proxy")
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class Heard(Struct):
    """What an engine answered."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    """Unless a relay has it."""
    raised: Exception | None = None
    """Why there is no answer, or no end of it."""

    @property
    def good(self) -> bool:
        """Whether the engine itself calls it a reply."""
        return 200 <= self.status < 300


class Asking:
    """Asks the engines of a pool, which are taken to be alike.

    Args:
        engine: The pool.
        training: What is written into calls, until an engine refuses a part of it.
        salted: Whether they are the policy's, whose versions salt the calls.
    """

    def __init__(self, engine: Pool, training: Training, *, salted: bool = True) -> None:
        self.training = training
        self._salted = salted
        self._engine = engine

    async def ask(self, call: Call) -> Incoming:
        """Send a call. Raises EngineError."""
        answer = await self._post(call, call.body)
        if answer.status in REFUSING:
            answer = await self._without(call, answer)
        if answer.proving is not None and answer.status == OK:
            mode = answer.proving.mode or await self._proved(answer, answer.proving)
            call.doubt = doubt(mode, call.ask.sampling)
        return answer

    async def _proved(self, answer: Incoming, proving: Proving) -> Mode:
        """What an engine's log probabilities are of, which nobody has asked it yet."""
        async with AsyncExitStack() as kept:
            await kept.enter_async_context(answer)
            mode = await proving.prove()
            kept.pop_all()
        return mode

    async def _without(self, call: Call, answer: Incoming) -> Incoming:
        """The answer to the call without what of ours a refusal names; else the refusal itself."""
        async with AsyncExitStack() as kept:
            await kept.enter_async_context(answer)
            if (refused := await self._refused(call, answer)) and (
                other := await self._again(call, refused)
            ):
                return other
            kept.pop_all()
        return answer

    async def _again(self, call: Call, refused: set[str]) -> Incoming | None:
        """The answer to a call without what was refused; None where that was not the reason."""
        for training in self.training.without(refused):
            body = _rewritten(call.body, refused, training)
            answer = await self._post(call, body)
            if answer.status in REFUSING:  # as likely as not it is the client's own mistake
                async with answer:
                    continue
            self.training = training
            names = ", ".join(sorted(refused))
            log.warning(
                "the engine does not take %s as we wrote it: no call has it so again", names
            )
            _note(call, body, refused, training)
            return answer
        return None

    async def _post(self, call: Call, body: bytes) -> Incoming:
        call.engine = ""
        answer = await self._engine.ask(
            call.path,
            body,
            call.traceparent,
            episode=call.story.episode_id,
            salt=call.ask.salt if self._salted else None,
            tried=call.tried,
            attempt=call.attempt,
        )
        call.sent, call.engine = answer.sent, answer.engine
        return answer

    def again(self, call: Call, raised: Exception | None) -> bool:
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

    async def _refused(self, call: Call, answer: Incoming) -> set[str]:
        """Which of our own fields a refusal names."""
        said = await answer.read()
        known = call.ask.sampling
        return {
            name
            for name, value in self.training.values.items()
            if name.encode() in said and known.get(name) == value
        }


def _rewritten(body: bytes, names: set[str], training: Training) -> bytes:
    fields = _fields.decode(body)
    for name in names:
        if name in training.raws:
            fields[name] = training.raws[name]
        else:
            del fields[name]
    return msgspec.json.encode(fields)


def _note(call: Call, body: bytes, names: set[str], training: Training) -> None:
    """Let the turn record what the engine took."""
    left: dict[str, Any] = {n: value for n, value in call.ask.sampling.items() if n not in names}
    left |= {name: training.values[name] for name in names if name in training.values}
    call.body = body
    call.ask = msgspec.structs.replace(call.ask, sampling=left)
