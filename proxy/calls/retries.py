"""Retries of clients must not sample again, and no reply is handed out twice.

OpenAI's clients repeat a request by themselves and say so (`x-stainless-retry-count`), without a
key that would tell two equal requests apart. So a retry joins, or takes the reply of, a call of
its episode with the same digest *whose client has gone*; a call whose client is there is another
sample.
"""

from typing import Final

from aiohttp import web

from odradek.proxy.episodes.draft import RecordedReply
from odradek.proxy.episodes.episode import LiveEpisode

MAX_ORPHANS: Final = 8
MAX_BYTES: Final = 8 * 1024 * 1024
HEADER: Final = "x-stainless-retry-count"


def gone(client: web.Request) -> bool:
    """Whether a client has closed its connection."""
    transport = client.transport
    return transport is None or transport.is_closing()


def count(client: web.Request) -> int:
    """How often the client has repeated this request, as it says itself."""
    said = client.headers.get(HEADER, "")
    return min(int(said), 1000) if said.isascii() and said.isdigit() and len(said) < 10 else 0


def keep(episode: LiveEpisode, result: RecordedReply) -> None:
    """Keep a reply for the retry of its client, within the bounds of an episode.

    Of those beyond the bounds the turns' names stay: the retry samples anew, and supersedes them.
    """
    if result.answer.status >= 400 or result.error:
        return
    episode.orphans.append(result)
    size = sum(one.size for one in episode.orphans)
    while len(episode.orphans) > MAX_ORPHANS or size > MAX_BYTES:
        oldest = episode.orphans.pop(0)
        size -= oldest.size
        episode.put_aside(oldest)


def take(episode: LiveEpisode, digest: str) -> RecordedReply | None:
    """Take the oldest reply to this request out of those kept."""
    for index, result in enumerate(episode.orphans):
        if result.digest == digest:
            return episode.orphans.pop(index)
    return None


def superseded(episode: LiveEpisode, digest: str) -> tuple[str, ...]:
    """The turns that a new sample of the same request replaces, choice by choice.

    Those are turns which count in the log although no client got them. A cut turn does not count.
    """
    for index, result in enumerate(episode.orphans):
        if result.digest == digest and any(standing := result.standing):
            del episode.orphans[index]
            return standing
    for index, (known, standing) in enumerate(episode.unseen):
        if known == digest:
            del episode.unseen[index]
            return standing
    return ()
