"""What a planted fault is made of."""

from typing import Any

Patches = list[tuple[Any, str, Any]]
"""(object, attribute, what stands there instead)"""
