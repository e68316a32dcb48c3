"""Keeping the processes of a project running."""

from odradek.infra.app.supervisor.child import ChildState
from odradek.infra.app.supervisor.errors import (
    ProcessNotReady,
    ProcessRefused,
    SupervisorError,
    UnknownProcess,
)
from odradek.infra.app.supervisor.spec import Backoff, Spec
from odradek.infra.app.supervisor.supervisor import Supervisor

__all__ = [
    "Backoff",
    "ChildState",
    "ProcessNotReady",
    "ProcessRefused",
    "Spec",
    "Supervisor",
    "SupervisorError",
    "UnknownProcess",
]
