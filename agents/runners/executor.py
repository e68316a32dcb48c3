"""The context that a user's own A2A executor gets from this host."""

from typing import Any

from odradek.agents.attempt.executor import ROLLOUT
from odradek.agents.rollout import Rollout


def rollout_of(context: Any) -> Rollout:
    """The Rollout of an A2A `RequestContext`: task, base URL, key, and where rewards go.

    Raises LookupError outside a host of ours.
    """
    try:
        rollout: Rollout = context.call_context.state[ROLLOUT]
    except KeyError:
        raise LookupError("this executor runs outside an Odradek agent host") from None
    return rollout
