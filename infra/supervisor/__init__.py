"""Keeping the processes of a project running."""

from odradek.infra.supervisor.child import State
from odradek.infra.supervisor.errors import (
    ProcessNotReady,
    ProcessRefused,
    SupervisorError,
    UnknownProcess,
)
from odradek.infra.supervisor.spec import Backoff, Spec
from odradek.infra.supervisor.supervisor import Supervisor

__all__ = [
    "Backoff",
    "ProcessNotReady",
    "ProcessRefused",
    "Spec",
    "State",
    "Supervisor",
    "SupervisorError",
    "UnknownProcess",
]
