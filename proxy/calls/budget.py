"""What an episode may use: calls, tokens and open streams, by the settings and by its token."""

from odradek.proxy.auth import Permit
from odradek.proxy.calls.call import ModelCall
from odradek.proxy.errors import BudgetSpent, TooManyStreams
from odradek.proxy.settings import ProxySettings


class Budget:
    """Holds calls against what their episodes may use."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings

    def afford(self, call: ModelCall) -> None:
        """Count a call that is to be sampled. Raises BudgetSpent or TooManyStreams."""
        episode, permit, known = call.episode, call.permit, self._settings
        calls = self.calls(permit)
        tokens = min(known.max_episode_tokens, permit.max_tokens or known.max_episode_tokens)
        if episode.samples >= calls:
            raise BudgetSpent(f"the episode has made its {calls} calls")
        if episode.tokens >= tokens:
            raise BudgetSpent(f"the episode has used its {tokens} tokens")
        if call.request.stream:
            same = (one for one in episode.calls if one.request.stream and one is not call)
            others = sum(one.permit.holder == permit.holder for one in same)
            if others >= known.streams_per_token:
                raise TooManyStreams(f"the token has {others} streams open already")
        episode.samples += 1

    def calls(self, permit: Permit) -> int:
        """How many calls an episode may make."""
        most = self._settings.max_episode_calls
        return min(most, permit.max_calls or most)
