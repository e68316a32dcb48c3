"""An engine's answer, or our error, as the turn in the log and as the agent's reply."""

from typing import Final

from aiohttp import web

from odradek.proxy.calls.engine_request import EngineAnswer
from odradek.proxy.dialects import cache_salt
from odradek.proxy.dialects.dialect import Dialect, ParsedRequest
from odradek.proxy.dialects.tools import hosted
from odradek.proxy.episodes.draft import AgentReply, RecordedReply
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.errors import EngineError, ProxyError
from odradek.proxy.wire import reply, shapes
from odradek.proxy.wire.body import NULL, UNREADABLE, error_of, wrong
from odradek.proxy.wire.choices import numbered
from odradek.schemas.errors import InvalidRecord

JSON: Final = {"Content-Type": "application/json"}
BROKEN: Final = 502
"""The status of an answer that the engine called good and that is none."""
FINAL: Final = {"x-should-retry": "false"}
"""What the SDKs of OpenAI and Anthropic obey, who else repeat each 409 and 429."""


def headers(engines: dict[str, str], request: ParsedRequest) -> dict[str, str]:
    """An answer's headers: the engine's, and what of the request it did not get."""
    if request.content_type and engines.get("Content-Type", "").startswith("text/event-stream"):
        engines = engines | {"Content-Type": request.content_type}
    return engines | hosted.headers(request.dropped) if request.dropped else engines


def taken(
    heard: EngineAnswer, request: ParsedRequest
) -> tuple[list[reply.CapturedReply], AgentReply]:
    """An answer in one piece: choice by choice for the log, and as its agent gets it."""
    dialect, status, headers, body = request.dialect, heard.status, heard.headers, heard.body
    if not heard.good:
        found = [reply.CapturedReply(error=error_of(body, status))]
        # What sends its caller elsewhere is no answer to an agent either.
        status = status if status >= 400 else BROKEN
        told = dialect.refusal(cache_salt.hidden(body), status)
        return found, AgentReply(status=status, headers=headers | JSON, chunks=(told,))
    words = True
    try:
        regular = numbered(shapes.whole(body, dialect.read, request.digest), request.choices)
        found = reply.choices(regular)
        # A field that only a dialect reads may be what cannot be read.
        told = b"" if found[0].error else dialect.reply(regular.data, request)
    except (InvalidRecord, *UNREADABLE) as error:
        found = [reply.unreadable(error)]
    else:
        if not found[0].error:
            # Clients read what calls itself something else as text.
            if not headers.get("Content-Type", "").startswith("application/json"):
                headers = headers | JSON
            return found, AgentReply(status=status, headers=headers, chunks=(told,))
        words = regular.body.error != NULL or not regular.body.choices
    told = (
        dialect.refusal(cache_salt.hidden(body), BROKEN)
        if cache_salt.FIELD in body or (words and wrong(body))
        else dialect.error(EngineError(found[0].error))
    )
    again = {"Retry-After": "1"}
    return found, AgentReply(status=BROKEN, headers=headers | JSON | again, chunks=(told,))


def remember(episode: LiveEpisode, result: RecordedReply) -> None:
    """Note a reply that the log has, where its dialect can refer back to it."""
    first = result.drafts[0]
    if first.request.origin is not None and not result.error:
        first.request.origin.remember(episode.memory, first.request, first.captured)


def error_answer(error: ProxyError, dialect: Dialect) -> AgentReply:
    """An error as an answer, with Retry-After where trying again may help."""
    again = {"Retry-After": str(error.retry_after_s)} if error.retriable else FINAL
    return AgentReply(status=error.status, headers=JSON | again, chunks=(dialect.error(error),))


def of_http(error: web.HTTPException) -> ProxyError:
    """An error that aiohttp itself raises, as ours."""

    class Http(ProxyError):
        status = error.status
        kind = "invalid_request_error"
        code = "bad_request"

    return Http(error.reason)
