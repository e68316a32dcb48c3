"""A project: the settings from odradek.toml and the environment."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, SecretStr

from odradek.infra.app.project.sections import (
    AgentSection,
    EngineSection,
    EvaluationSection,
    FollowerSection,
    RewardSection,
)

S = TypeVar("S", bound=BaseModel)
LEVEL: Final = "level "
"""What the origin of a value begins with that a level decided."""


@dataclass(frozen=True)
class SettingValue:
    """A value and where it came from."""

    key: str
    value: Any
    origin: str
    """`default`, the file's name, the environment variable, or `level` and which one."""
    variable: str
    """The variable through which a process gets it; empty for what only the project reads."""
    secret: bool

    @property
    def written(self) -> bool:
        """Whether the file or the environment says it."""
        return self.origin != "default" and not self.origin.startswith(LEVEL)

    @property
    def shown(self) -> str:
        """The value as people may see it."""
        if self.secret or isinstance(self.value, SecretStr):
            return "********" if _set(self.value) else ""
        return _as_text(self.value)


@dataclass(frozen=True)
class ProjectSection:
    """A section, or one of several of the same name."""

    own: BaseModel | None
    values: tuple[SettingValue, ...]

    def environment(self) -> dict[str, str]:
        """The file's variables for a process; it inherits the environment anyway."""
        return {
            value.variable: _as_text(value.value)
            for value in self.values
            if value.variable and value.written and value.origin != value.variable
        }


@dataclass(frozen=True)
class Project:
    """A project file, read and checked."""

    folder: Path
    path: Path
    entries: dict[str, tuple[ProjectSection, ...]]
    written: frozenset[str]
    """Names of the sections that the file holds."""

    def environment(self, section: str) -> dict[str, str]:
        """Environment variables of a section that stands once."""
        return self.entries[section][0].environment()

    def value(self, section: str, key: str) -> Any:
        """The value of a key, in a section that occurs once."""
        return next(value.value for value in self.entries[section][0].values if value.key == key)

    def is_set(self, section: str, key: str) -> bool:
        """Whether the file or the environment sets it."""
        values = self.entries[section][0].values
        return next(value.written for value in values if value.key == key)

    @property
    def work(self) -> Path:
        """Where logs, models and runs of this project go."""
        return self.folder / ".odradek"

    @property
    def engine(self) -> EngineSection:
        """`[engine]`."""
        return _as(EngineSection, self.entries["engine"][0])

    @property
    def evaluation(self) -> EvaluationSection:
        """`[evaluation]`."""
        return _as(EvaluationSection, self.entries["evaluation"][0])

    @property
    def agents(self) -> tuple[tuple[AgentSection, ProjectSection], ...]:
        """`[[agents]]`."""
        return tuple((_as(AgentSection, entry), entry) for entry in self.entries["agents"])

    @property
    def followers(self) -> tuple[tuple[FollowerSection, ProjectSection], ...]:
        """`[[trainers]]`."""
        return tuple((_as(FollowerSection, entry), entry) for entry in self.entries["trainers"])

    @property
    def rewards(self) -> tuple[tuple[RewardSection, ProjectSection], ...]:
        """`[[rewards]]`."""
        return tuple((_as(RewardSection, entry), entry) for entry in self.entries["rewards"])


def _as_text(value: Any) -> str:
    """A value as an environment variable says it."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return str(value)


def _set(value: Any) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _as(kind: type[S], entry: ProjectSection) -> S:
    assert isinstance(entry.own, kind)
    return entry.own
