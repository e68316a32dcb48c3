"""The agent's side of a reply: a recorded one, released, or an error of ours."""

from typing import Final

from aiohttp import web

from odradek.proxy.calls import retries
from odradek.proxy.calls.call import ModelCall
from odradek.proxy.dialects import cache_salt
from odradek.proxy.dialects.dialect import Dialect, ParsedRequest
from odradek.proxy.dialects.tools import hosted
from odradek.proxy.episodes.draft import AgentReply, RecordedReply
from odradek.proxy.errors import ProxyError, answered

JSON: Final = {"Content-Type": "application/json"}
FINAL: Final = {"x-should-retry": "false"}
"""What the SDKs of OpenAI and Anthropic obey, who else repeat each 409 and 429."""
NOBODY: Final = 499
"""The status of an answer that nobody waits for."""


async def release(call: ModelCall, reply: RecordedReply) -> web.StreamResponse:
    """Hand the reply to the client, to its retry, or keep it for one; the log has it."""
    line, relay = call.line, call.relay
    if relay is not None and line is not None and line.begun and not call.joined:
        # The turn is acknowledged: the end may go out. If we die between these two lines, the
        # agent has seen no finish reason and repeats the call, with another writer.
        response = await line.end(relay.rest)
        if call.joined or call.gone:
            _hand_on(call, reply)
        return response
    if call.joined or call.gone:
        _hand_on(call, reply)
        return web.Response(status=NOBODY)
    answer = reply.answer
    body = b"".join(answer.chunks)
    if line is None or not line.begun:
        return web.Response(status=answer.status, headers=answer.headers, body=body)
    if not answer.streamed:  # an error, for which it is too late to have a status
        body = call.request.dialect.stream(call.request).fail(
            answered(answer.status, cache_salt.redacted(reply.error))
        )
    return await line.end(body)


def _hand_on(call: ModelCall, reply: RecordedReply) -> None:
    """Give the reply to the retry that waits for it, or keep it for one that may come."""
    if call.joined:
        call.resolve(reply)
    else:
        retries.keep(call.episode, reply)


async def break_off(call: ModelCall, error: ProxyError) -> web.StreamResponse:
    """End a stream that has begun with an error, for which a status would come too late.

    Raises the error where nothing has begun.
    """
    line = call.line
    if line is None or not line.begun:
        raise error
    call.fail(error)
    stream = call.relay or call.request.dialect.stream(call.request)
    return await line.end(stream.fail(error))


def headers(engines: dict[str, str], request: ParsedRequest) -> dict[str, str]:
    """An answer's headers: the engine's, and what of the request it did not get."""
    if request.content_type and engines.get("Content-Type", "").startswith("text/event-stream"):
        engines = engines | {"Content-Type": request.content_type}
    return engines | hosted.headers(request.dropped) if request.dropped else engines


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
