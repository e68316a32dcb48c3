"""Composing turns: pure, from a captured reply to the event that the log gets.

A turn is composed in two steps. `draft` sets what a call and its reply are; `placed` sets what only
the moment of writing decides: the number, and what earlier turns of the episode hold already.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from odradek.proxy.dialects.dialect import ParsedRequest, fingerprint
from odradek.proxy.episodes.draft import TurnDraft
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.episodes.history import Leaf
from odradek.proxy.episodes.prefix_reuse import PromptSource, continuation, ends
from odradek.proxy.wire import media
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.arrays import ID_BYTES, count
from odradek.schemas.events import (
    Completion,
    Prompt,
    Reply,
    Request,
    Turn,
    Upstream,
    VersionSpan,
)

TOO_LARGE: Final = "turn_too_large"
"""The error of a turn that stands in the place of one that no log takes."""
UNSEEN: Final = "media"
"""Why a turn is not trained on whose history is more than text."""
BAD_TOKENS: Final = "bad_tokens"
"""Why a turn is not trained on whose ids or log probabilities no reader would accept."""


def draft(
    request: ParsedRequest,
    captured: CapturedReply,
    *,
    status: int = 0,
    aside: str = "",
    inferred: int | None = None,
    source: PromptSource | None = None,
    traceparent: str | None = None,
    **fields: Any,
) -> TurnDraft:
    """A turn without a place in the log.

    Args:
        request: What the reply answers.
        captured: The reply, in the structs that a turn consists of.
        status: The engine's HTTP status; 0 for no answer.
        aside: Why it is not trained on whatever it holds.
        inferred: The version of the weights, where the engine names none: the older of those known
            at the call's start and end.
        source: How its prompt came about, where prompts carry ids on.
        traceparent: The call's trace.
        fields: Further fields of `Turn`, under their own names.
    """
    n = count(captured.completion.ids)
    versions, versions_from = captured.versions, "engine" if captured.versions else ""
    if n and not versions and inferred is not None:
        versions, versions_from = (VersionSpan(inferred, 0, n),), "inferred"
    turn = Turn(
        episode_id="",
        turn_id="",
        writer="",
        seq=0,
        choice=captured.choice,
        dialect=request.dialect.name,
        model=request.model,
        reply=captured.reply,
        completion=captured.completion,
        versions=versions,
        versions_from=versions_from,  # type: ignore[arg-type]  # one of its three words
        usage=captured.usage,
        upstream=Upstream(status=status, id=captured.id),
        streamed=request.stream,
        error=captured.error,
        untrainable=aside or captured.untrainable,
        continuation=continuation(source, captured),
        **fields,
    )
    return TurnDraft(
        turn=turn,
        request=request,
        captured=captured,
        aside=aside,
        traceparent=traceparent,
        source=source,
    )


def placed(episode: LiveEpisode, draft: TurnDraft, writer: str, turn_id: str) -> Turn:
    """The turn as the next one of its episode, as a delta on the turns before it.

    Args:
        episode: Whose turn it is; its lock is held.
        draft: The turn; what of its history is more than text is noted in it.
        writer: The boot id.
        turn_id: Its id.
    """
    request = _request(episode, draft.request)
    draft.media = _first_media(episode, draft, request)
    unseen = draft.request.media or draft.media is not None
    return msgspec.structs.replace(
        draft.turn,
        episode_id=episode.episode_id,
        turn_id=turn_id,
        writer=writer,
        seq=episode.next_seq,
        request=request,
        prompt=_prompt(episode, draft.captured.prompt),
        equal_calls=max(1, episode.begun[draft.request.digest]),
        untrainable=UNSEEN if unseen and not draft.aside else draft.turn.untrainable,
    )


def without_tokens(turn: Turn, draft: TurnDraft) -> Turn:
    """The same turn, less the tokens that no reader accepts."""
    return msgspec.structs.replace(
        turn, prompt=Prompt(), completion=Completion(), versions=(), versions_from="",
        untrainable=draft.aside or BAD_TOKENS,
    )  # fmt: skip


def without_content(turn: Turn) -> Turn:
    """What stands in the place of a turn that no log takes."""
    return msgspec.structs.replace(
        turn, request=Request(digest=turn.request.digest), reply=Reply(), prompt=Prompt(),
        completion=Completion(), versions=(), versions_from="", error=TOO_LARGE,
    )  # fmt: skip


def leaf(draft: TurnDraft, turn: Turn) -> Leaf:
    """What later turns may build on of one that the log has."""
    request, captured = draft.request, draft.captured
    has_ids = bool(turn.prompt.ids or turn.prompt.base)
    ids = captured.prompt + captured.completion.ids if has_ids else b""
    message = captured.reply.message
    return Leaf(
        turn_id=turn.turn_id,
        messages=request.messages,
        reply=message,
        ids=ids,
        sampling=request.sampling,
        media=draft.media,
        size=len(request.body) + len(message) + len(ids),
        ends=ends(draft.source, len(request.messages), captured) if ids else (),
    )


def _request(episode: LiveEpisode, request: ParsedRequest) -> Request:
    """The request as a delta on the turn that shares most of its messages."""
    base, kept = episode.branches.messages(request.messages)
    tools: tuple[Raw, ...] = ()
    digest = ""
    if request.tools is not None:
        digest = fingerprint(request.tools)
        tools = () if episode.knows_tools(digest) else _tools(request.tools)
    return Request(
        base=base,
        prefix_len=kept,
        messages=tuple(request.messages[kept:]),
        tools=tools,
        tools_digest=digest,
        sampling=episode.branches.sampling(base, request.sampling),
        digest=request.digest,
        dropped=request.dropped,
    )


def _first_media(episode: LiveEpisode, draft: TurnDraft, request: Request) -> int | None:
    """Which message is the first that is more than text, the reply the last of them."""
    messages = draft.request.messages
    first = episode.branches.media(request.base, messages, request.prefix_len)
    if first is None and media.holds(draft.captured.reply.message):
        return len(messages)
    return first


def _tools(tools: Raw) -> tuple[Raw, ...]:
    """The tools one by one; what is no list stands as the only one."""
    try:
        return msgspec.json.decode(tools, type=tuple[Raw, ...])
    except msgspec.ValidationError:
        return (tools,)


def _prompt(episode: LiveEpisode, ids: bytes) -> Prompt:
    """The prompt as a delta on the turn that shares most of its ids."""
    base, length = episode.branches.prompt(ids)
    return Prompt(base=base, prefix_len=length, ids=ids[ID_BYTES * length :])
