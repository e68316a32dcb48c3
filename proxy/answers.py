"""What an engine's answer, or an error of ours, is for the log and for the agent."""

from typing import Final

from odradek.proxy import capture
from odradek.proxy.dialects.dialect import Ask, Dialect
from odradek.proxy.dialects.tools import hosted
from odradek.proxy.errors import ProxyError
from odradek.proxy.retries import Answer, Result
from odradek.proxy.story import Story

JSON: Final = {"Content-Type": "application/json"}
FINAL: Final = {"x-should-retry": "false"}
"""What the SDKs of OpenAI and Anthropic obey, who else repeat each 409 and 429."""


def headers(engines: dict[str, str], ask: Ask) -> dict[str, str]:
    """An answer's headers: the engine's, and what of the request it did not get."""
    return engines | hosted.headers(ask.dropped) if ask.dropped else engines


def captured(status: int, body: bytes, ask: Ask) -> list[capture.Captured]:
    """An answer in one piece, choice by choice."""
    if status >= 400 or status < 200:
        return [capture.Captured(error=capture.error_of(body, status))]
    return capture.whole(body, ask.dialect.read)


def said(body: bytes, ask: Ask) -> bytes:
    """The same for the agent; as the engine sent it where it cannot be read."""
    try:
        return ask.dialect.reply(body, ask)
    except capture.UNREADABLE:
        return body


def remember(story: Story, result: Result) -> None:
    """Note a reply that the log has, where its dialect can refer back to it."""
    first = result.drafts[0]
    if first.ask.origin is not None and not result.error:
        first.ask.origin.remember(story.memory, first.ask, first.captured)


def error_answer(error: ProxyError, dialect: Dialect) -> Answer:
    """An error as an answer, with Retry-After where trying again may help."""
    again = {"Retry-After": str(error.retry_after_s)} if error.retriable else FINAL
    return Answer(status=error.status, headers=JSON | again, chunks=(dialect.error(error),))
