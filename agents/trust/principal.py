"""The principal of a request: whose tasks it may see, and whose messages its ids are of."""

import hashlib
from typing import Any, Final

from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.utils.errors import TaskNotFoundError

SHOWN: Final = 32
"""Characters of a message's id that was made one of its principal's own."""


class Principal(User):
    """Who asks, for the SDK and for agents that look into their call context.

    Args:
        name: As the request's assertion says; "": nobody signed it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody signed for it."""
        return bool(self._name)

    @property
    def user_name(self) -> str:
        """Its name."""
        return self._name


def on_behalf(principal: str, **state: Any) -> ServerCallContext:
    """The SDK's call context of a principal's request."""
    return ServerCallContext(state=state, user=Principal(principal))


def check_owner(owner: str, principal: str) -> None:
    """Raise TaskNotFoundError for the task of another: it is answered as one that is absent."""
    if owner != principal:
        raise TaskNotFoundError


def own_message_id(message_id: str, principal: str) -> str:
    """A message's id within its principal: two may use the same one and get a task each."""
    if not principal:
        return message_id
    named = f"{len(principal)}:{principal}{message_id}"
    return hashlib.sha256(named.encode()).hexdigest()[:SHOWN]
