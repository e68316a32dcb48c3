"""What holds for every setting of every process, before its own bounds. Pure.

A settings class takes this as a base, so a new setting is held to it without a word. Nothing here
quotes a value: it may be a secret.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

SHORTEST_S: Final = 1e-9
LONGEST_S: Final = 366 * 24 * 3600.0
"""A year: a wait beyond is a slip of the pen, and loops cannot count so far."""
UNITS: Final = {"_s": 1.0, "_ms": 1000.0}
"""How names of settings that are times end, with what a second is in them."""
SMALLEST: Final = 1e-300
LARGEST: Final = 1e18
MOST: Final = 2**31 - 1
LONGEST_NAME: Final = 256
"""Characters of a name on the wire."""
CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
HALVES: Final = re.compile("[\ud800-\udfff]")
NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,200}")

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What numpy, torch and vLLM all take for a seed."""


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("must be up to 200 letters, digits, dots, - and _: Kafka takes no others")
    return value


KafkaName = Annotated[str, AfterValidator(_name)]
"""What becomes a topic's or a group member's name, or a part of it."""


def _some(value: str) -> str:
    if not 0 < len(value.strip()) <= LONGEST_NAME:
        raise ValueError(f"must have 1 to {LONGEST_NAME} characters")
    return value


Name = Annotated[str, AfterValidator(_some)]
"""A name that the wire carries."""


class CheckedSettings(BaseModel):
    """Settings without endless, tiny or huge numbers, and without text that nothing can hold."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By the value of the setting `level`: what it decides where nothing else does."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if not cls.presets or not isinstance(data, dict) or "level" not in data:
            return data
        return {**cls.presets.get(str(data["level"]), {}), **data}

    @field_validator("*", mode="after")
    @classmethod
    def _meant(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        bounded = any(
            getattr(bound, "le", None) is not None for bound in cls.model_fields[name].metadata
        )
        _check(name, value, bounded=bounded)
        return value


def from_environment(prefix: str) -> SettingsConfigDict:
    """How a process reads its settings from variables with a prefix.

    An empty variable is none. An error names the field, and the docs take a field's text from the
    docstring below it.
    """
    return SettingsConfigDict(
        env_prefix=prefix,
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        loc_by_alias=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),  # a setting may be called model_…
    )


def _check(name: str, value: Any, *, bounded: bool = False) -> None:
    """Raise ValueError for a value that nobody can mean."""
    match value:
        case SecretStr():
            _text(value.get_secret_value(), path=False)
        case str() | Path():
            _text(str(value), path=isinstance(value, Path))
        case bool():
            pass
        case int() | float():
            _number(name, value, bounded=bounded)
        case Mapping():
            for key, entry in value.items():
                _check("", key)
                _check(str(key), entry)
        case list() | tuple():
            for element in value:
                _check(name, element)


def _number(name: str, value: float, *, bounded: bool) -> None:
    if isinstance(value, int) and not bounded and abs(value) > MOST:
        raise ValueError(f"must be {MOST} or less")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if abs(value) >= LARGEST:
        raise ValueError(f"must be below {LARGEST:g}: nobody means a number that large")
    if 0 < abs(value) < SMALLEST:
        raise ValueError("is as good as 0, and not 0: write 0, or a number that is meant")
    second = next((of for end, of in UNITS.items() if name.endswith(end)), None)
    if second is None or value == 0:
        return
    if not SHORTEST_S * second <= value <= LONGEST_S * second:
        raise ValueError(f"must lie between {SHORTEST_S * second:g} and {LONGEST_S * second:g}")


def _text(value: str, *, path: bool) -> None:
    if CONTROLS.search(value):
        raise ValueError("holds a line end or another control character: take it out")
    # Folders may have names in another encoding; Python writes those bytes as half characters.
    if HALVES.search(value) and not path:
        raise ValueError("holds bytes that are no UTF-8: write it in UTF-8")
