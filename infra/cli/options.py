"""Options of a verb that are settings of its process: those that were given win over the rest."""

from typing import Any


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, as keyword arguments of a settings class."""
    return {name: value for name, value in options.items() if value is not None}
