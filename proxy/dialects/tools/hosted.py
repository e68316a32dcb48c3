"""Tools that only a vendor's servers have, such as a web search: left out, and named.

Agents list such tools by default and play on without them, so a refusal would end a task that needs
none. The turn and a header of the reply name what the engine did not get.
"""

import re
from typing import Final, Literal

from odradek.proxy.errors import Unsupported

Hosted = Literal["drop", "refuse"]
HEADER: Final = "X-Odradek-Dropped"
MOST: Final = 32
"""Names that a turn and a header hold."""
CHOICE: Final = "tool_choice"
"""The name of a choice that could not be kept, since its tool was left out."""
WORDS: Final = frozenset({"auto", "none", "required"})
"""Choices that are no tool; some clients write `{"type": "auto"}` for `"auto"`."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Absent:
    """The parts of a request that are left out.

    Args:
        hosted: `refuse` makes an error of each.
    """

    def __init__(self, hosted: Hosted = "drop") -> None:
        self._refuse = hosted == "refuse"
        self._names: dict[str, None] = {}

    def leave(self, kind: str, where: str) -> None:
        """Leave out what stands at `where`. Raises Unsupported, where nothing may be left out."""
        if self._refuse:
            raise Unsupported(
                f"{where}: {kind[:64]}: no engine behind this proxy has it; "
                "ODRADEK_PROXY_HOSTED_TOOLS=drop leaves it out",
                param=where,
            )
        # A header holds it, and the agent chose it.
        name = kind if _NAME.fullmatch(kind) else "other"
        if len(self._names) < MOST:
            self._names[name] = None

    @property
    def names(self) -> tuple[str, ...]:
        """Each kind once, in order."""
        return tuple(self._names)


def headers(dropped: tuple[str, ...]) -> dict[str, str]:
    """The note about them in the agent's reply."""
    return {HEADER: ", ".join(dropped)} if dropped else {}
