"""What an episode may use: calls, tokens and open streams, by our bounds and by its token."""

from typing import Final

from odradek.proxy.auth import Permit
from odradek.proxy.episodes.episode import InFlight, LiveEpisode
from odradek.proxy.errors import BudgetSpent, TooManyStreams

STREAMS_PER_TOKEN: Final = 256
"""Streams that one token may have open at once."""
MAX_EPISODE_CALLS: Final = 100_000
"""Calls of one episode, all in all. Counts of tokens have the same bound."""
MAX_EPISODE_TOKENS: Final = 1_000_000_000
"""Tokens of one episode, prompts and replies, after which no further call is taken."""


def afford(call: InFlight, episode: LiveEpisode) -> None:
    """Count a call that is to be sampled. Raises BudgetSpent or TooManyStreams."""
    permit = call.permit
    calls = call_limit(permit)
    tokens = min(MAX_EPISODE_TOKENS, permit.max_tokens or MAX_EPISODE_TOKENS)
    if episode.samples >= calls:
        raise BudgetSpent(f"the episode has made its {calls} calls")
    if episode.tokens >= tokens:
        raise BudgetSpent(f"the episode has used its {tokens} tokens")
    if call.request.stream:
        others = sum(
            other.request.stream and other.permit.holder == permit.holder
            for other in episode.calls
            if other is not call
        )
        if others >= STREAMS_PER_TOKEN:
            raise TooManyStreams(f"the token has {others} streams open already")
    episode.samples += 1


def call_limit(permit: Permit) -> int:
    """How many calls an episode may make."""
    return min(MAX_EPISODE_CALLS, permit.max_calls or MAX_EPISODE_CALLS)
