"""What a planted fault is made of."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

Patches = list[tuple[Any, str, Any]]
"""(object, attribute, what stands there instead)"""


@contextmanager
def applied(patches: Patches) -> Iterator[None]:
    """Within this block the patches stand."""
    with ExitStack() as stack:
        for place, attribute, thing in patches:
            stack.enter_context(patch.object(place, attribute, thing))
        yield
