"""Where calls of an agent's other model names go, and which calls are beside its task.

Agents ask for more than the task needs: a title, a summary of what a tool said, whether some text
is safe. With the episode's reward on such calls a model would learn titles.
"""

from collections.abc import Mapping

from msgspec import Struct
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict


@with_config(ConfigDict(extra="forbid"))
class Mapped(TypedDict, total=False):
    """Where a model's name leads, by the settings."""

    engine: str
    model: str
    trained: bool
    key_env: str


class Route(Struct, frozen=True):
    """The engine and model that a name leads to."""

    engine: str = ""
    """The engine's address, or several, comma separated; "" for the policy's own engine."""
    model: str = ""
    """The model's name there; "" for the policy's name, or, at another engine, the agent's."""
    trained: bool = False
    key_env: str = ""
    """The environment variable that holds the engine's key, if it wants one."""
    policy: str = ""
    """The policy's name at its own engine, for calls whose token names no model."""

    @property
    def plain(self) -> bool:
        """Whether the call goes out as it came: no vendor knows the fields that a turn needs."""
        return bool(self.engine) and not self.trained

    def named(self, model: str, policy: str) -> str:
        """The name that the engine is asked for."""
        return self.model or (model if self.engine else policy or self.policy or model)


def routes(models: Mapping[str, Mapped], policy: str) -> dict[str, Route]:
    """The routes of all names that settings map."""
    return {name: Route(**mapped, policy=policy) for name, mapped in models.items()}
