"""What looks like a credential in records, and hiding it. Pure."""

import re
from typing import Any, Final

SECRET: Final = re.compile(
    r"authorization|api[_-]?key|credentials|password|secret_key|token\b", re.IGNORECASE
)
"""Names of fields and headers that hold one."""
HIDDEN: Final = "********"


def masked(value: Any) -> Any:
    """A JSON value without what looks like a credential."""
    if isinstance(value, dict):
        return {
            name: HIDDEN if SECRET.search(name) and isinstance(inner, str) else masked(inner)
            for name, inner in value.items()
        }
    return [masked(inner) for inner in value] if isinstance(value, list) else value
