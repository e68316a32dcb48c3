"""Retries of clients must not sample again, and no reply is handed out twice.

OpenAI's clients repeat a request by themselves and say so (`x-stainless-retry-count`), without a
key that would tell two equal requests apart. So a retry joins, or takes the reply of, a call of
its episode with the same digest *whose client has gone*; a call whose client is there is another
sample.
"""

from typing import Final

from odradek.proxy.calls.call import ModelCall
from odradek.proxy.calls.keepalive import always
from odradek.proxy.episodes.draft import RecordedReply
from odradek.proxy.episodes.episode import LiveEpisode

MAX_ORPHANS: Final = 8
MAX_BYTES: Final = 8 * 1024 * 1024


async def waiting_reply(call: ModelCall) -> RecordedReply | None:
    """The reply that a retry's client did not wait for, if there is one: made already, or soon."""
    for other in call.episode.calls:
        same = other is not call and other.request.digest == call.request.digest
        if same and other.gone and not other.follows:
            if call.line is not None:
                call.line.watch(always)
            return await other.join(call)
    return take(call.episode, call.request.digest)


def keep(episode: LiveEpisode, reply: RecordedReply) -> None:
    """Keep a reply for the retry of its client, within the bounds of an episode.

    Of those beyond the bounds the turns' names stay: the retry samples anew, and supersedes them.
    """
    if reply.answer.status >= 400 or reply.error:
        return
    episode.orphans.append(reply)
    size = sum(orphan.size for orphan in episode.orphans)
    while len(episode.orphans) > MAX_ORPHANS or size > MAX_BYTES:
        oldest = episode.orphans.pop(0)
        size -= oldest.size
        episode.put_aside(oldest)


def take(episode: LiveEpisode, digest: str) -> RecordedReply | None:
    """Take the oldest reply to this request out of those kept."""
    for index, reply in enumerate(episode.orphans):
        if reply.digest == digest:
            return episode.orphans.pop(index)
    return None


def superseded(episode: LiveEpisode, digest: str) -> tuple[str, ...]:
    """The turns that a new sample of the same request replaces, choice by choice.

    Those are turns which count in the log although no client got them. A cut turn does not count.
    """
    for index, reply in enumerate(episode.orphans):
        if reply.digest == digest and any(turn_ids := reply.turn_ids):
            del episode.orphans[index]
            return turn_ids
    for index, (unseen, turn_ids) in enumerate(episode.unseen):
        if unseen == digest:
            del episode.unseen[index]
            return turn_ids
    return ()
