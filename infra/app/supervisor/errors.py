"""Errors of supervised processes.

SupervisorError
├── ProcessRefused     a process ended at its first start with code 2: a restart cannot mend that
├── ProcessNotReady    a process did not say in time that it is ready
└── UnknownProcess     no process has that name
"""

from odradek.infra.errors import InfraError


class SupervisorError(InfraError):
    """A process cannot be kept running."""


class ProcessRefused(SupervisorError):
    """A process ended with code 2 at its first start: its settings or its input are wrong."""


class ProcessNotReady(SupervisorError):
    """A process runs, or keeps dying, and never became ready."""


class UnknownProcess(SupervisorError):
    """A name that no process of this supervisor has."""
