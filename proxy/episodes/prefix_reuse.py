"""The next prompt from ids that are there already: pure, from three renderings to one array.

An engine that renders a conversation anew makes its replies' tokens again from text, and they come
out otherwise: blanks that a template strips, a tool call that is written back, two tokens where the
model sampled three. Carried on, a reply's ids stay what they were, and only what follows it is
rendered. That is sound where the template is prefix-monotonic there: the rendering of all messages
begins with that of the messages up to the reply. Then what comes behind it is the same text in any
conversation, so it is right behind the sampled ids, too.
"""

from enum import StrEnum

import numpy as np
from msgspec import Struct

from odradek.proxy.episodes.history import ReplyEnd
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.arrays import ID_BYTES, common_prefix, count, type_ids
from odradek.schemas.events import NO_CONTINUATION, Continuation


class Reason(StrEnum):
    """Why a prompt was rendered."""

    NO_EARLIER_REPLY = "no_earlier_reply"
    """No reply whose ids we know comes first: a first call, a sub-agent, a rewritten history."""
    INPUTS_CHANGED = "inputs_changed"
    """Tools, model or arguments of the template are others than they were."""
    PREFILL = "prefill"
    """The last message is to be gone on with, not to be answered."""
    MEDIA = "media"
    """Some message is more than text."""
    NOT_RENDERED = "not_rendered"
    """The engine gave no renderings, or not in time."""
    NOT_MONOTONIC = "not_prefix_monotonic"
    """The template renders a history otherwise once more follows it."""
    UNCLOSED_REPLY = "unclosed_reply"
    """Where the reply ends in its own rendering cannot be told."""
    IGNORED = "ids_ignored"
    """The engine used another prompt than it was sent."""


class PromptSource(Struct, kw_only=True):
    """How a call's prompt came about."""

    continuation: Continuation
    sent: bytes = b""
    """The ids that the engine was sent."""
    shape: bytes = b""
    limit: int | None = None
    """Tokens that the reply may have."""

    def proved(self, used: bytes) -> Continuation:
        """The note, once the engine has reported the ids that it used."""
        if not self.sent or not used or used == self.sent:
            return self.continuation
        return rendered(Reason.IGNORED, common_prefix(self.sent, used))


class Renderings(Struct, frozen=True, kw_only=True):
    """The ids that the chat template makes of one conversation."""

    before: bytes
    """Up to the reply."""
    reply: bytes
    """With it."""
    whole: bytes
    """With all messages, and the beginning of an answer."""


def rendered(reason: Reason, index: int | None = None) -> Continuation:
    """The prompt was rendered, for that reason."""
    return Continuation(mode="render", reason=reason.value, index=index)


def bridge(ids: bytes, start: int, renderings: Renderings, *, closed: bool) -> PromptSource:
    """The next prompt, or why it is to be rendered.

    Args:
        ids: The ids of a prompt and its reply.
        start: Where the reply begins in them, in ids.
        renderings: What the engine's template makes of it.
        closed: Whether the reply ends with an end token.
    """
    for first, second in (
        (renderings.before, renderings.reply),
        (renderings.reply, renderings.whole),
    ):
        if not second.startswith(first):
            index = common_prefix(first, second)
            return PromptSource(continuation=rendered(Reason.NOT_MONOTONIC, index))
    own = renderings.reply[len(renderings.before) :]
    rest = _rest(own, renderings.whole[len(renderings.reply) :], ids[start * ID_BYTES :], closed)
    if rest is None:
        return PromptSource(continuation=rendered(Reason.UNCLOSED_REPLY))
    return PromptSource(continuation=Continuation(mode="bridge"), sent=ids + rest)


def _rest(own: bytes, new: bytes, sampled: bytes, closed: bool) -> bytes | None:
    """What follows the sampled ids; None where that cannot be told.

    Args:
        own: The reply in its rendering.
        new: What the template renders behind it.
        sampled: The reply as it was sampled.
        closed: Whether its last id is an end token.
    """
    body = sampled
    if closed:
        body, end = sampled[:-ID_BYTES], sampled[-ID_BYTES:]
        if (at := _last(own, end)) is not None:
            # What the template puts behind an end token, such as a line feed, nobody sampled.
            return own[at + ID_BYTES :] + new
        if new.startswith(end):
            # Some templates have no end token: the next message's first one closes a reply.
            return new[ID_BYTES:]
    # Cut off at a limit, or ended by another token than the template's: behind the text, then.
    if (at := _only(own, body)) is not None:
        return own[at + len(body) :] + new
    return None


def _last(ids: bytes, token: bytes) -> int | None:
    """Where a token stands last, in bytes."""
    places = np.flatnonzero(np.frombuffer(ids, type_ids) == np.frombuffer(token, type_ids))
    return int(places[-1]) * ID_BYTES if places.size else None


def _only(ids: bytes, part: bytes) -> int | None:
    """Where a part stands, in bytes, if it stands there once."""
    places: list[int] = []
    at = ids.find(part) if part else -1
    while at >= 0 and len(places) < 2:
        if at % ID_BYTES == 0:
            places.append(at)
        at = ids.find(part, at + 1)
    return places[0] if len(places) == 1 else None


def ends(
    source: PromptSource | None, messages: int, captured: CapturedReply
) -> tuple[ReplyEnd, ...]:
    """The end of a reply that later prompts may go on from; none where its ids are not sure."""
    sampled = count(captured.completion.ids)
    if source is None or captured.untrainable or not sampled:
        return ()
    start = count(captured.prompt)
    # Parsers call a reply that was cut off behind a tool call a tool call.
    closed = captured.closed and sampled != source.limit
    return (ReplyEnd(messages + 1, start, start + sampled, closed, source.shape),)


def continuation(source: PromptSource | None, captured: CapturedReply) -> Continuation:
    """The turn's note on how its prompt was made."""
    return NO_CONTINUATION if source is None else source.proved(captured.prompt)
