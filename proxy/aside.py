"""Calls beside an episode's task: recorded, counted, part of the conversation, never trained on."""

from typing import Final

from odradek.proxy.call import Call

SIDE_CALL: Final = "side_call"
"""Why their turns are not trained on."""


class Aside:
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

    def why(self, call: Call) -> str:
        """Why the turns of a call that is over are not trained on whatever they hold."""
        route, header = call.ask.route, self._header
        beside = (
            (route is not None and not route.trained)
            or (header and call.headers.get(header))
            or (self.toolless(call) and call.story.has_tools)
        )
        self.count += bool(beside)
        return SIDE_CALL if beside else ""

    def toolless(self, call: Call) -> bool:
        """Whether it is beside the task as soon as another call of its episode has tools."""
        return self._without_tools and call.ask.toolless
