"""Calls beside an episode's task: recorded, counted, part of the conversation, never trained on."""

from collections.abc import Iterable
from typing import Final

from odradek.proxy.calls.call import ModelCall
from odradek.schemas.sampling import OFF

SIDE_CALL: Final = "side_call"
"""Why their turns are not trained on."""
NO: Final = OFF | {"none", "null"}
"""What a header says, however spelt, where the call is none."""


class SideCalls:
    """Knows them by their model's name, by a header, or by that they have no tools.

    Args:
        header: One that says it, "" for none.
        without_tools: Whether a call has no tools while others of its episode have some.
    """

    def __init__(self, *, header: str, without_tools: bool) -> None:
        self.count = 0
        """How many there were."""
        self._header = header
        self._without_tools = without_tools

    def why(self, call: ModelCall) -> str:
        """Why the turns of a call that is over are not trained on whatever they hold."""
        beside = self._is_named(call) or (self.without_tools(call) and call.episode.has_tools)
        self.count += beside
        return SIDE_CALL if beside else ""

    def _is_named(self, call: ModelCall) -> bool:
        """Whether its model's name, or a header, says that it is beside the task."""
        route, header = call.request.route, self._header
        return (route is not None and not route.trained) or bool(
            header and _says_so(call.headers.getall(header, ()))
        )

    def saw(self, call: ModelCall) -> None:
        """Note the tools of an episode's task; a side call's tools do not count."""
        episode = call.episode
        if not (episode.has_tools or call.request.without_tools or self._is_named(call)):
            episode.has_tools = True

    def without_tools(self, call: ModelCall) -> bool:
        """Whether it is beside the task as soon as another call of its episode has tools."""
        return self._without_tools and call.request.without_tools


def _says_so(values: Iterable[str]) -> bool:
    """Whether a header, sent once or more, says anything but no."""
    return any(value.strip().lower() not in NO for value in values)
