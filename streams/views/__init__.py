"""Live views: counters over the topics, hosted by Faust. Nothing depends on them.

`view` says what one is and makes a stage of it, `rates` is one, and `live` runs one and prints what
it shows. `VIEWS` is the table of them. A view of your own is a file and one line here:
docs/extend.md.
"""

from typing import Final

__all__ = ["VIEWS"]

_HERE: Final = "odradek.streams.views"
VIEWS: Final[dict[str, str]] = {
    "rates": f"{_HERE}.rates:Rates",
}
"""By name, `module:class` of a LiveView."""
