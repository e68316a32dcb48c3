"""Errors between an agent, the engine and the log.

ProxyError
├── Refused                      the caller must change something; not retriable
│   ├── BadRequest          400  the body is no request of its dialect
│   │   ├── LimitExceeded   400  it asks for more than the limits allow
│   │   ├── Unsupported     400  it asks for what the engine cannot do
│   │   └── ReplyUnknown    400  it goes on from a reply that this proxy does not know
│   ├── Unauthorized        401  no token, or none of ours
│   ├── Forbidden           403  a good token, for something else
│   ├── NoSuchRoute         404  no such address
│   ├── NoSuchModel         404  the engine does not serve it
│   ├── EpisodeClosed       409  the episode has ended
│   ├── BodyTooLarge        413  the request is beyond the limits
│   ├── HeadersTooLarge     431  the request's headers are
│   ├── BudgetSpent         429  the episode has had all its calls or tokens
│   ├── TooManyStreams      429  retriable: the token has its bound of streams open
│   └── TooManyCalls        429  retriable: the episode has its bound of calls in flight
├── EngineError                  the engine's doing, retriable
│   ├── EngineUnreachable   503  nobody answers at the engine's address
│   ├── EngineBusy          503  it takes nothing now, as while its weights are swapped
│   ├── EngineBroke         502  the connection ended in the middle of an answer
│   ├── StreamGarbled       502  its event stream cannot be read
│   ├── ReplyTooLarge       502  not retriable: an answer beyond the bound
│   ├── CapabilityMissing   501  not retriable: no engine of this kind can do it
│   └── EngineSlow          504  no answer within the call's deadline
├── LogRefused              503  retriable: the log did not take the turn, so its end is withheld
├── TurnTooLarge            500  the log can never take a turn of this size
├── LogLost                      crash: brokers answer, and take nothing for long; begin afresh
└── ProxyMisconfigured           settings that contradict each other: a person must act
"""

from typing import ClassVar


class ProxyError(Exception):
    """Base; those with a status become an answer in the words of the caller's dialect."""

    retriable: ClassVar[bool] = False
    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "api_error"
    retry_after_s: int = 1

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """The field of the request that it is about."""


class Refused(ProxyError):
    """The caller's doing."""

    status = 400
    kind = "invalid_request_error"


class BadRequest(Refused):
    """The body cannot be understood."""

    code = "bad_request"


class LimitExceeded(BadRequest):
    """Beyond a bound on one request."""

    code = "limit_exceeded"


class Unsupported(BadRequest):
    """Something that the engine cannot do."""

    code = "unsupported_value"


class ReplyUnknown(BadRequest):
    """An earlier reply that was never here, or is forgotten."""

    code = "previous_response_not_found"


class Unauthorized(Refused):
    """No credential, or one that we did not sign."""

    status = 401
    code = "invalid_api_key"


class Forbidden(Refused):
    """A credential for something else."""

    status = 403
    code = "forbidden"


class NoSuchRoute(Refused):
    """An address that the proxy does not have."""

    status = 404
    code = "not_found"


class NoSuchModel(Refused):
    """A model that the engine does not serve."""

    status = 404
    code = "model_not_found"


class EpisodeClosed(Refused):
    """The episode has ended: no further call."""

    status = 409
    code = "episode_sealed"


class BodyTooLarge(Refused):
    """Beyond the bound on a request's size."""

    status = 413
    code = "body_too_large"


class HeadersTooLarge(Refused):
    """Beyond the bound on a request's headers."""

    status = 431
    code = "headers_too_large"


class BudgetSpent(Refused):
    """The episode may call no more; trying again does not help."""

    status = 429
    code = "budget_spent"


class TooManyStreams(Refused):
    """Beyond the bound on streams that one token has open."""

    retriable = True
    status = 429
    code = "too_many_streams"


class TooManyCalls(Refused):
    """Beyond the bound on calls in flight of one episode."""

    retriable = True
    status = 429
    code = "too_many_calls"


class EngineError(ProxyError):
    """The engine's doing."""

    retriable = True
    status = 502
    code = "engine_error"


def answered(status: int, message: str) -> EngineError:
    """An engine's error, for an agent that has already got a status."""

    class Answered(EngineError):
        """An answer of the engine."""

    Answered.status = status
    Answered.kind = "invalid_request_error" if 400 <= status < 500 else "api_error"
    return Answered(message)


class EngineUnreachable(EngineError):
    """Nobody answers at the engine's address."""

    status = 503
    code = "engine_unreachable"


class EngineBusy(EngineError):
    """The engine takes nothing just now."""

    status = 503
    code = "engine_busy"


class EngineBroke(EngineError):
    """The connection ended before the answer did."""

    code = "engine_broke"


class StreamGarbled(EngineError):
    """An event of the engine's stream is beyond any bound."""


class ReplyTooLarge(EngineError):
    """An answer beyond the bound; the same request would get the like again."""

    retriable = False
    code = "reply_too_large"


class CapabilityMissing(EngineError):
    """Something that engines of this kind cannot do."""

    retriable = False
    status = 501
    kind = "invalid_request_error"
    code = "capability_missing"


class EngineSlow(EngineError):
    """No answer within the deadline."""

    status = 504
    code = "engine_slow"


class LogRefused(ProxyError):
    """The turn is not known to be in the log, so the agent must not see its end."""

    retriable = True
    status = 503
    code = "log_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TurnTooLarge(ProxyError):
    """The turn is beyond what the topic takes."""

    code = "turn_too_large"


class LogLost(ProxyError):
    """The brokers answer, and have taken nothing for so long that only a new process may help."""


class ProxyMisconfigured(ProxyError):
    """Settings that contradict each other."""
